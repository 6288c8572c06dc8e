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
