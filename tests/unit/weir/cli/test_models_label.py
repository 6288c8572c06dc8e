from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer
from weir.protocol import models_pb2 as models_pb

WRITTEN = "written to versions.toml"


def test_labels_are_set_and_removed(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "label", "good", "stable=2", "old=", "--target", fake.target)

    assert (done.code, done.err) == (0, "")
    assert done.out == f"good: stable -> 2 ({WRITTEN})\ngood: old removed ({WRITTEN})\n"
    first, second = fake.models.asked
    assert (first.label, first.version) == ("stable", 2)
    assert (second.label, second.version) == ("old", 0)


@pytest.mark.parametrize(
    ("reason", "told"),
    [("it is read-only", ": it is read-only"), ("", "")],
    ids=["reason", "older server"],
)
def test_a_label_that_is_not_written_holds_until_the_stop(
    weir: Weir, fake: FakeServer, reason: str, told: str
) -> None:
    fake.models.label_response = models_pb.SetLabelResponse(reason=reason)

    done = weir("models", "label", "good", "stable=2", "old=", "--target", fake.target)

    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"good: stable -> 2 (until the server stops{told})\n"
        f"good: old removed (until the server stops{told})\n"
    )


def test_a_label_on_disk_is_printed_with_its_effect(
    weir: Weir, tmp_path: Path, nobody: str
) -> None:
    (tmp_path / "lenet5" / "2").mkdir(parents=True)

    done = weir("models", "label", "lenet5", "stable=2", "--models", tmp_path, "--target", nobody)

    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "lenet5: stable -> 2\na server with --model-control poll follows by itself, one with "
        "explicit at `weir models load lenet5`, one with none when it starts again\n"
    )


def test_a_label_on_disk_that_is_not_there_is_refused(weir: Weir, tmp_path: Path) -> None:
    (tmp_path / "lenet5" / "2").mkdir(parents=True)

    done = weir("models", "label", "lenet5", "canray=", "--models", tmp_path)

    assert (done.code, done.out) == (2, "")
    assert "lenet5: expected a label among none, got canray=" in done.err


@pytest.mark.parametrize(
    ("given", "is_near"),
    [
        ("stabel", True),
        ("Stable", True),
        ("stble", True),
        ("stable", False),
        ("unstable", False),
        ("canary", False),
    ],
)
def test_what_looks_like_a_misspelt_stable_gets_a_remark(
    weir: Weir, fake: FakeServer, tmp_path: Path, *, given: str, is_near: bool
) -> None:
    (tmp_path / "good" / "2").mkdir(parents=True)

    by_call = weir("models", "label", "good", f"{given}=2", "--target", fake.target)
    on_disk = weir("models", "label", "good", f"{given}=2", "--models", tmp_path)

    remark = f"weir: {given}: a label like any other; is 'stable' meant?\n" if is_near else ""
    assert (by_call.code, by_call.err) == (0, remark)
    assert (on_disk.code, on_disk.err) == (0, remark)


def test_a_label_that_cannot_be_set_is_reported_beside_the_others(
    weir: Weir, fake: FakeServer
) -> None:
    done = weir("models", "label", "good", "next=9", "stable=2", "--target", fake.target)

    assert (done.code, done.out) == (1, f"good: stable -> 2 ({WRITTEN})\n")
    assert "weir: next: good: no version 9" in done.err


@pytest.mark.parametrize("text", ["stable", "=2", "2=1", "a b=1", "stable=0", "stable=x", "a=-1"])
def test_what_is_no_assignment_is_refused(weir: Weir, fake: FakeServer, text: str) -> None:
    done = weir("models", "label", "good", "stable=2", text, "--target", fake.target)

    assert done.code == 2
    assert fake.models.asked == []
