"""Labels written to `versions.toml`; `test_model_directory.py` has the forms of the file."""

from pathlib import Path

import pytest

from weir.bundle.errors import BrokenBundle, InvalidVersions
from weir.bundle.version_labels import write_labels
from weir.bundle.versions import FILE_NAME


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[labels]\nstable = 1\n", None),
        ("labels = { stable = 1 }\n", None),
        ('policy = "all"\n\n[labels]\nstable = 1\n', 'policy = "all"\n'),
        ("# Production.\n[labels]\nstable = 1\n", "# Production.\n"),
        (
            "[labels]\nstable = 1\n\n[policy]\nlatest = 2  # two\n",
            "[policy]\nlatest = 2  # two\n",
        ),
        ("[labels]\n# answers\nstable = 1\n", "[labels]\n# answers\n"),
        ("[labels]  # who answers\nstable = 1\n", "[labels]  # who answers\n"),
        ("labels.stable = 1\npolicy.latest = 2\n", "policy.latest = 2\n"),
    ],
    ids=repr,
)
def test_last_label_takes_its_table_with_it_but_no_comment(
    tmp_path: Path, text: str, left: str | None
) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(text)

    write_labels(tmp_path, {"stable": None})

    assert (path.read_text() if path.exists() else None) == left
    assert [each.name for each in tmp_path.iterdir()] == ([] if left is None else [FILE_NAME])


def test_label_that_is_not_there_is_removed_already(tmp_path: Path) -> None:
    write_labels(tmp_path, {"stable": None})

    assert not list(tmp_path.iterdir())


def test_labels_that_the_file_has_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("labels.stable = 0x1")
    before = path.stat()

    write_labels(tmp_path, {"stable": 1})

    assert path.stat() == before


def test_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("[labels]\nstable = 1\n")
    (tmp_path / FILE_NAME).symlink_to("elsewhere")

    with pytest.raises(BrokenBundle, match="got a link"):
        write_labels(tmp_path, {"stable": 2})

    assert (tmp_path / FILE_NAME).is_symlink()


def test_form_that_cannot_be_edited_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("labels = 7")

    with pytest.raises(InvalidVersions, match=r"^versions\.toml: "):
        write_labels(tmp_path, {"stable": 2})

    assert path.read_text() == "labels = 7"
