from pathlib import Path

import pytest

from bundle.versions import Versions, read
from tests.weir.commands.shell import Weir
from tests.weir.fake_server import FakeServer


def test_the_version_below_becomes_the_stable_one(weir: Weir, fake: FakeServer) -> None:
    done = weir("rollback", "good", "--target", fake.target)

    assert (done.code, done.out) == (
        0,
        "good: 2 -> 1; `weir models label good stable=` lets the newest answer again\n",
    )
    (asked,) = fake.models.asked
    assert (asked.label, asked.version) == ("stable", 1)


def test_numbers_count_not_their_text(weir: Weir, fake: FakeServer) -> None:
    good = fake.models.listing.models[0]
    good.answering = "10"
    del good.on_disk[:]
    good.on_disk.extend(["10", "3", "2"])

    weir("rollback", "good", "--target", fake.target)

    assert fake.models.asked[0].version == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("good", "good: version 1 answers, and there is no older one on disk"),
        ("flop", "flop: no version answers"),
        ("nobody", "expected a model among away, flop, good, got 'nobody'"),
    ],
)
def test_where_nothing_is_older_nothing_is_changed(
    weir: Weir, fake: FakeServer, name: str, message: str
) -> None:
    fake.models.listing.models[0].answering = "1"

    done = weir("rollback", name, "--target", fake.target)

    assert done.code == 2 and message in done.err
    assert fake.models.asked == []


def test_an_older_version_that_does_not_load_is_an_error(weir: Weir, fake: FakeServer) -> None:
    flop = fake.models.listing.models[1]
    flop.answering = "2"

    done = weir("rollback", "flop", "--target", fake.target)

    assert (done.code, done.out) == (1, "")
    assert "no graph" in done.err


def test_a_server_without_control_is_told(weir: Weir, fake: FakeServer) -> None:
    fake.models.takes_control = False

    done = weir("rollback", "good", "--target", fake.target)

    assert (done.code, done.out) == (1, "")
    assert "the server takes no control calls" in done.err and "--models" in done.err


def test_a_repository_on_disk_is_rolled_back_without_a_server(
    weir: Weir, tmp_path: Path, nobody: str
) -> None:
    for version in ("1", "2", "10"):
        (tmp_path / "lenet5" / version).mkdir(parents=True)

    done = weir("rollback", "lenet5", "--models", tmp_path, "--target", nobody)

    assert done.out.startswith(
        f"lenet5: 10 -> 2; `weir models label lenet5 stable= --models {tmp_path}`"
    )
    assert read(tmp_path / "lenet5") == Versions(labels={"stable": 2})
