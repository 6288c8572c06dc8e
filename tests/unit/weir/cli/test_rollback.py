from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer
from weir.bundle.versions import VersionsFile, read


def test_the_version_below_becomes_the_stable_one(weir: Weir, fake: FakeServer) -> None:
    done = weir("rollback", "good", "--target", fake.target)

    assert (done.code, done.out) == (
        0,
        (
            "good: 2 -> 1 (written to versions.toml)\n"
            "`weir models label good stable=` lets the newest answer again, `stable=N` version N\n"
        ),
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


def test_versions_that_cannot_be_served_are_named_and_passed_over(
    weir: Weir, fake: FakeServer
) -> None:
    good = fake.models.listing.models[0]
    good.answering = "3"
    fake.models.broken = (2,)

    done = weir("rollback", "good", "--target", fake.target)

    assert done.code == 0 and done.out.startswith("good: 3 -> 1 (")
    assert done.err == "weir: model 'good' version 2: no graph\n"
    assert [asked.version for asked in fake.models.asked] == [2, 1]


def test_without_a_loadable_older_version_the_default_is_printed(
    weir: Weir, fake: FakeServer
) -> None:
    fake.models.broken = (1, 2)

    done = weir("rollback", "good", "--target", fake.target)

    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        "weir: model 'good' version 1: no graph",
        "weir: good: no older version can be served; as before, 2 (stable) answers",
    ]


def test_where_none_answers_the_newest_is_left(weir: Weir, fake: FakeServer) -> None:
    good = fake.models.listing.models[0]
    good.answering = ""
    good.versions[1].state = "UNAVAILABLE"
    del good.on_disk[:]
    # The newest is no longer there.
    good.on_disk.extend(["2", "1"])

    done = weir("rollback", "good", "--target", fake.target)

    assert done.code == 0 and done.out.startswith("good: none -> 2 (")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("good", 2, "good: version 1 answers, and on disk none is older than 1"),
        ("flop", 2, "flop: no version answers, and on disk none is older than 1"),
        ("nobody", 1, "unknown model 'nobody'; there are away, flop, good"),
    ],
)
def test_where_nothing_is_older_nothing_is_changed(
    weir: Weir, fake: FakeServer, name: str, code: int, message: str
) -> None:
    fake.models.listing.models[0].answering = "1"

    done = weir("rollback", name, "--target", fake.target)

    assert (done.code, done.err) == (code, f"weir: {message}\n")
    assert fake.models.asked == []


def test_disabled_model_control_is_reported(weir: Weir, fake: FakeServer) -> None:
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

    first, follows, undo = done.out.splitlines()
    assert first == "lenet5: 10 -> 2" and "`weir models load lenet5`" in follows
    assert undo.startswith(
        f"`weir models label lenet5 stable= --models {tmp_path}` lets the newest"
    )
    assert read(tmp_path / "lenet5") == VersionsFile(labels={"stable": 2})
