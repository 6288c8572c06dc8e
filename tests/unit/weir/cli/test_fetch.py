import fcntl
import shutil
import sys
from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir


def test_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, weir: Weir, tmp_path: Path
) -> None:
    # What an import of a package that is not there does.
    monkeypatch.setitem(sys.modules, "kserve_storage", None)

    done = weir("fetch", "s3://bucket/models", "--to", tmp_path / "models")

    assert done.code == 2
    assert "pip install 'weir[fetch]'" in done.err and "kserve_storage" in done.err
    assert list(tmp_path.iterdir()) == []


def test_folder_that_exists_is_kept(weir: Weir, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = weir("fetch", "s3://bucket/models", "--to", tmp_path)

    assert done.code == 2
    assert done.err == f"weir: {tmp_path}: exists; --replace replaces it\n"


def test_file_is_no_folder(weir: Weir, tmp_path: Path) -> None:
    (tmp_path / "models").touch()

    done = weir("fetch", "s3://bucket/models", "--to", tmp_path / "models", "--replace")

    assert done.code == 2
    assert "expected a folder or nothing, got a file" in done.err


def test_address_that_cannot_be_read_is_wrong_usage(weir: Weir, tmp_path: Path) -> None:
    done = weir("fetch", "https://user:secret@[::1/models?signature=secret", "--to", tmp_path / "m")

    assert done.code == 2
    assert done.err == "weir: expected an address: Invalid IPv6 URL\n"


def test_folder_that_another_fetch_removes_before_the_lock_is_made_again(
    monkeypatch: pytest.MonkeyPatch, weir: Weir, tmp_path: Path
) -> None:
    hidden = tmp_path / "target" / ".models.fetching"
    (tmp_path / "target" / "models").mkdir(parents=True)
    (tmp_path / "target" / "models" / "file").touch()
    locked: list[bool] = []
    lock = fcntl.flock

    def ended_in_between(folder: int, operation: int) -> None:
        if not locked:
            hidden.rmdir()
        lock(folder, operation)
        locked.append(hidden.exists())

    monkeypatch.setattr(fcntl, "flock", ended_in_between)

    done = weir("fetch", "s3://bucket/models", "--to", tmp_path / "target" / "models")

    assert locked == [False, True]
    assert done.code == 2 and "--replace replaces it" in done.err
    assert not hidden.exists()


def test_leftovers_that_cannot_be_removed_are_one_line(
    monkeypatch: pytest.MonkeyPatch, weir: Weir, tmp_path: Path
) -> None:
    leftover = tmp_path / ".models.fetching" / "files"
    leftover.mkdir(parents=True)

    def refused(path: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)

    done = weir("fetch", "s3://bucket/models", "--to", tmp_path / "models")

    assert done.code == 1
    assert done.err == f"weir: {leftover}: Permission denied\n"
