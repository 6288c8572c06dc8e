"""Names of models and versions in a model repository, `<models>/<name>/<version>/`."""

import os
import re
from pathlib import Path

from weir.bundle.errors import InvalidName

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# 18 digits fit the wire's signed 64-bit integers. As in Triton, "0" and "01" are not versions.
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def check_name(name: str) -> None:
    """Raise InvalidName unless `name` can be a directory of the repository."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"model name: expected up to 128 letters, digits, '_', '.' or '-', "
            f"not starting with '.' or '-', got {name!r}"
        )


def is_version_name(name: str) -> bool:
    """Whether a directory with this name in a model's directory is a version."""
    return _VERSION.fullmatch(name) is not None


def invalid_version_names(model_directory: Path) -> list[str]:
    """Names in a model directory that look like versions and are not.

    These are directories whose name is not a number from 1, and numbers that are not directories.
    Hidden names are ignored: the writer prepares a bundle in a hidden directory.
    """
    with os.scandir(model_directory) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir() != is_version_name(entry.name)
        )


def versions(model_directory: Path) -> list[int]:
    """The version numbers of a model, ascending; a missing directory has none.

    Other names are ignored. A version may be incomplete.
    """
    try:
        with os.scandir(model_directory) as entries:
            return sorted(
                int(entry.name)
                for entry in entries
                if is_version_name(entry.name) and entry.is_dir()
            )
    except FileNotFoundError:
        return []
