"""Where a model's newest bundle lies on disk."""

from pathlib import Path

from weir.bundle.repository import versions
from weir.client.errors import UsageError


def find_bundle(path: Path) -> Path:
    """The version directory meant by it, or by the model directory above: there the newest.

    Raises:
        UsageError: neither.
    """
    if (path / "model.onnx").exists() or (path / "model.json").exists():
        return path
    found = versions(path)
    if not found:
        raise UsageError(f"{path}: neither a bundle nor a directory of versions")
    return path / str(found[-1])
