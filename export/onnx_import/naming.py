"""Name of an imported model: that of its file, or of the folder of a `model.onnx`."""

import re
from pathlib import Path

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.-]+")


def default_name(file: Path) -> str:
    """The model's name; characters that no model's name has become `-`."""
    parts = [file.stem]
    if file.name == "model.onnx":
        # In a repository, a version's number lies between: NAME/1/model.onnx.
        folders = [folder.name for folder in file.absolute().parents]
        parts = [name for name in folders if name and not name.isdecimal()][:1] or parts
    return _NOT_ALLOWED.sub("-", parts[0]).strip("-.") or "model"
