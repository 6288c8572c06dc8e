from pathlib import Path

import pytest

from weir.cli.model_paths import find_bundle
from weir.client.errors import UsageError


def test_the_newest_version_is_found(tmp_path: Path) -> None:
    for version in ("1", "9", "10", "notes"):
        (tmp_path / version).mkdir()

    assert find_bundle(tmp_path) == tmp_path / "10"


@pytest.mark.parametrize("file", ["model.json", "model.onnx"])
def test_a_version_directory_is_itself(tmp_path: Path, file: str) -> None:
    (tmp_path / file).touch()

    assert find_bundle(tmp_path) == tmp_path


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a bundle"):
        find_bundle(tmp_path / "nothing")
