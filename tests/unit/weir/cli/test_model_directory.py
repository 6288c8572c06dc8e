import errno
import os
from pathlib import Path

import pytest

from weir.bundle.versions import VersionPolicy, VersionsFile, parse, read
from weir.cli.model_directory import find_bundle, parse_assignments, roll_back, set_labels
from weir.client.errors import UsageError

COMMENTED = """\
# Production.
policy = { latest = 2 }   # two at a time

[labels]
# Answers without a version.
stable = 1   # since Monday
canary = 2
old = 1      # for the report
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        (tmp_path / "lenet5" / str(version)).mkdir(parents=True)
    return tmp_path


def write(directory: Path, text: str) -> Path:
    path = directory / "versions.toml"
    path.write_bytes(text.encode())
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_newest_version_is_found(tmp_path: Path) -> None:
    for version in ("1", "9", "10", "notes"):
        (tmp_path / version).mkdir()

    assert find_bundle(tmp_path) == tmp_path / "10"


@pytest.mark.parametrize("file", ["model.json", "model.onnx"])
def test_a_version_directory_is_itself(tmp_path: Path, file: str) -> None:
    (tmp_path / file).touch()

    assert find_bundle(tmp_path) == tmp_path


def test_a_run_is_refused_with_the_command_that_exports_it(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()

    with pytest.raises(UsageError, match=r"got a run of weir train; weir export .* --to models"):
        find_bundle(tmp_path)


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a bundle"):
        find_bundle(tmp_path)
    with pytest.raises(
        UsageError, match="nothing: expected a bundle or a directory of versions, got no such"
    ):
        find_bundle(tmp_path / "nothing")


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
    write(models / "lenet5", COMMENTED)

    set_labels(models, "lenet5", {"stable": 3, "old": None})

    assert read(models / "lenet5") == VersionsFile(
        VersionPolicy(latest=2), {"stable": 3, "canary": 2}
    )


def test_comments_and_order_survive_a_label(models: Path) -> None:
    file = write(models / "lenet5", COMMENTED)

    set_labels(models, "lenet5", {"stable": 3, "old": None, "v1.2": 2})

    assert file.read_text() == COMMENTED.replace("stable = 1 ", "stable = 3 ").replace(
        "old = 1      # for the report", '"v1.2" = 2'
    )


def test_comments_and_order_survive_a_rollback(models: Path) -> None:
    file = write(models / "lenet5", COMMENTED.replace("stable = 1 ", "stable = 3 "))

    roll_back(models, "lenet5")

    assert file.read_text() == COMMENTED.replace("stable = 1 ", "stable = 2 ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        'policy = "all"',
        "[labels]",
        "labels = {}\n",
        "labels = { stable = 1, canary = 2 }  # inline\n",
        "labels.stable = 1\npolicy.latest = 2\n",
        "[labels]\r\nstable = 1\r\n[policy]\r\nlatest = 1\r\n",
        "[policy]\nspecific = [\n  1, # one\n  3,\n]\n",
        "'labels'.\"stable\" = 0x1",
        "[labels]\n# last words\n\n[policy]\nlatest = 2\n",
    ],
    ids=repr,
)
def test_every_form_of_the_file_can_be_edited(models: Path, text: str) -> None:
    before = parse(text.encode())
    file = write(models / "lenet5", text)

    set_labels(models, "lenet5", {"stable": 3, "_rc.1": 1})

    assert read(models / "lenet5") == VersionsFile(
        before.policy, {**before.labels, "stable": 3, "_rc.1": 1}
    )
    comments = [line.partition("#")[2] for line in text.splitlines()]
    assert all(comment in file.read_bytes().decode() for comment in comments)


def test_the_file_is_replaced_as_a_whole(models: Path) -> None:
    write(models / "lenet5", "# mine\n")

    set_labels(models, "lenet5", {"stable": 1})

    assert names(models / "lenet5") == ["1", "2", "3", "versions.toml"]
    assert (models / "lenet5" / "versions.toml").stat().st_mode & 0o777 == 0o644


def test_a_new_file_is_readable_for_people(models: Path) -> None:
    set_labels(models, "lenet5", {"stable": 1, "v1.2": 3})

    text = (models / "lenet5" / "versions.toml").read_text()
    assert text == '[labels]\nstable = 1\n"v1.2" = 3\n'


def test_labels_are_set_where_there_is_no_file(models: Path) -> None:
    set_labels(models, "lenet5", {"stable": 2})

    assert read(models / "lenet5") == VersionsFile(labels={"stable": 2})


def test_a_version_that_is_not_there_gets_no_label(models: Path) -> None:
    with pytest.raises(UsageError, match="lenet5: expected a version among 1, 2, 3, got stable=4"):
        set_labels(models, "lenet5", {"canary": 1, "stable": 4})

    assert read(models / "lenet5") == VersionsFile()


@pytest.mark.parametrize(
    ("labels", "there"), [({"canary": 2, "stable": 1}, "canary, stable"), ({}, "none")]
)
def test_a_label_that_is_not_there_cannot_be_removed(
    models: Path, labels: dict[str, int], there: str
) -> None:
    lines = [f"{label} = {version}\n" for label, version in labels.items()]
    write(models / "lenet5", "".join(["[labels]\n", *lines]))

    with pytest.raises(UsageError, match=f"lenet5: expected a label among {there}, got canray="):
        set_labels(models, "lenet5", {"stable": 3, "canray": None})

    assert read(models / "lenet5").labels == labels


def test_a_file_that_cannot_be_read_is_left_alone(models: Path) -> None:
    file = models / "lenet5" / "versions.toml"
    file.write_text("policy = 'some'  # mine")

    with pytest.raises(UsageError, match=r"lenet5: versions\.toml: policy: expected"):
        set_labels(models, "lenet5", {"stable": 2})

    assert file.read_text() == "policy = 'some'  # mine"


def test_a_file_that_cannot_be_written_is_an_error(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = write(models / "lenet5", COMMENTED)
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(UsageError, match=r"lenet5: No space left on device$"):
        set_labels(models, "lenet5", {"stable": 2})

    assert file.read_text() == COMMENTED
    assert names(models / "lenet5") == ["1", "2", "3", "versions.toml"]


@pytest.mark.parametrize("name", ["nobody", "..", "a/b", ""])
def test_a_model_that_is_not_there_is_refused(models: Path, name: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        set_labels(models, name, {"stable": 1})
    with pytest.raises(UsageError, match="expected"):
        roll_back(models, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (3, 2)),
        ("labels.stable = 2", (2, 1)),
        ("labels.stable = 9", (3, 2)),
        ("labels.canary = 3", (3, 2)),
        ("policy.specific = [1, 2]", (2, 1)),
    ],
)
def test_what_answers_is_followed_by_the_next_lower(
    models: Path, text: str, expected: tuple[int, int]
) -> None:
    write(models / "lenet5", text)

    assert roll_back(models, "lenet5") == expected
    assert read(models / "lenet5").labels["stable"] == expected[1]
    assert read(models / "lenet5").policy == parse(text.encode()).policy


def test_below_the_lowest_there_is_nothing(models: Path) -> None:
    write(models / "lenet5", "labels.stable = 1")

    with pytest.raises(UsageError, match="version 1 answers, and on disk none is older than 1"):
        roll_back(models, "lenet5")


def test_a_policy_that_lets_nothing_answer_is_an_error(models: Path) -> None:
    write(models / "lenet5", "policy.specific = [7]")

    with pytest.raises(UsageError, match="lets none of its versions answer"):
        roll_back(models, "lenet5")
