import errno
import os
from pathlib import Path

import pytest

from weir.bundle.versions import Policy, Versions, read, write
from weir.cli.labels import parse_assignments, roll_back, set_labels
from weir.client.errors import UsageError


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        (tmp_path / "lenet5" / str(version)).mkdir(parents=True)
    return tmp_path


def test_an_assignment_is_a_label_and_a_version() -> None:
    given = ["stable=2", "v1.2-rc=10", "canary="]

    assert parse_assignments(given) == {"stable": 2, "v1.2-rc": 10, "canary": None}


@pytest.mark.parametrize(
    "text",
    ["", "stable", "=1", "1=1", "a=b", "a=1=2", "a=+1", "a=\u0661", "a=" + "9" * 5000, "a=0"],
)
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        parse_assignments(["fine=1", text])


def test_a_label_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="stable: expected once"):
        parse_assignments(["stable=1", "canary=", "stable=2"])


def test_policy_and_other_labels_stay(models: Path) -> None:
    write(models / "lenet5", Versions(Policy(latest=2), {"stable": 1, "canary": 2, "old": 1}))

    set_labels(models, "lenet5", {"stable": 3, "old": None})

    assert read(models / "lenet5") == Versions(Policy(latest=2), {"stable": 3, "canary": 2})


def test_labels_are_set_where_there_is_no_file(models: Path) -> None:
    set_labels(models, "lenet5", {"stable": 2})

    assert read(models / "lenet5") == Versions(labels={"stable": 2})


def test_a_version_that_is_not_there_gets_no_label(models: Path) -> None:
    with pytest.raises(UsageError, match="lenet5: expected a version among 1, 2, 3, got stable=4"):
        set_labels(models, "lenet5", {"canary": 1, "stable": 4})

    assert read(models / "lenet5") == Versions()


@pytest.mark.parametrize(
    ("labels", "there"), [({"canary": 2, "stable": 1}, "canary, stable"), ({}, "none")]
)
def test_a_label_that_is_not_there_cannot_be_removed(
    models: Path, labels: dict[str, int], there: str
) -> None:
    write(models / "lenet5", Versions(labels=labels))

    with pytest.raises(UsageError, match=f"lenet5: expected a label among {there}, got canray="):
        set_labels(models, "lenet5", {"stable": 3, "canray": None})

    assert read(models / "lenet5").labels == labels


def test_a_file_that_cannot_be_read_is_left_alone(models: Path) -> None:
    file = models / "lenet5" / "versions.toml"
    file.write_text("policy = 'some'  # mine")

    with pytest.raises(UsageError, match=r"lenet5: versions\.toml: policy: expected"):
        set_labels(models, "lenet5", {"stable": 2})

    assert file.read_text() == "policy = 'some'  # mine"


def test_a_file_that_cannot_be_written_is_told(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(UsageError, match=r"lenet5: No space left on device$"):
        set_labels(models, "lenet5", {"stable": 2})


@pytest.mark.parametrize("name", ["nobody", "..", "a/b", ""])
def test_a_model_that_is_not_there_is_refused(models: Path, name: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        set_labels(models, name, {"stable": 1})
    with pytest.raises(UsageError, match="expected"):
        roll_back(models, name)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (Versions(), (3, 2)),
        (Versions(labels={"stable": 2}), (2, 1)),
        (Versions(labels={"stable": 9}), (3, 2)),
        (Versions(labels={"canary": 3}), (3, 2)),
        (Versions(Policy(specific=(1, 2))), (2, 1)),
    ],
)
def test_what_answers_is_followed_by_the_next_lower(
    models: Path, versions: Versions, expected: tuple[int, int]
) -> None:
    write(models / "lenet5", versions)

    assert roll_back(models, "lenet5") == expected
    assert read(models / "lenet5").labels["stable"] == expected[1]
    assert read(models / "lenet5").policy == versions.policy


def test_below_the_lowest_there_is_nothing(models: Path) -> None:
    write(models / "lenet5", Versions(labels={"stable": 1}))

    with pytest.raises(UsageError, match="version 1 answers, and on disk none is older than 1"):
        roll_back(models, "lenet5")


def test_a_policy_that_lets_nothing_answer_is_told(models: Path) -> None:
    write(models / "lenet5", Versions(Policy(specific=(7,))))

    with pytest.raises(UsageError, match="lets none of its versions answer"):
        roll_back(models, "lenet5")
