import os
from pathlib import Path

import pytest

from weir.bundle.errors import InvalidName
from weir.bundle.repository import check_name, invalid_version_names, versions


def test_only_plain_numbers_are_versions(tmp_path: Path) -> None:
    for name in ["1", "12", "3", "0", "01", "abc", "-1", "1.0", "+2", "٣", ".7", "9" * 19]:
        (tmp_path / name).mkdir()
    (tmp_path / "5").touch()

    assert versions(tmp_path) == [1, 3, 12]


def test_missing_directory_has_no_versions(tmp_path: Path) -> None:
    assert versions(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["lenet5", "Inception_v3", "a", "1", "x.y-z"])
def test_valid_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "..", "a b", "a\n", "a/b", "%2e"])
def test_invalid_names(name: str) -> None:
    with pytest.raises(InvalidName, match="model name"):
        check_name(name)


def test_strays_are_what_looks_like_a_version_and_is_none(tmp_path: Path) -> None:
    for name in ("1", "10", "0", "01", "abc", "-1", "1 ", "\u0661", "1" * 19, ".publishing-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "config.pbtxt").write_text("")
    os.mkfifo(tmp_path / "3")
    (tmp_path / "4").write_text("")
    (tmp_path / "5").symlink_to(tmp_path / "1")

    assert versions(tmp_path) == [1, 5, 10]
    assert invalid_version_names(tmp_path) == sorted(
        ["-1", "0", "01", "1 ", "1" * 19, "3", "4", "abc", "\u0661"]
    )
