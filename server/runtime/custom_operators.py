"""Custom operators: a library that ONNX Runtime loads for graphs with operators of other domains.

It is native code in the process of the server, so the operator asks for it.
"""

import re
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from weir.server.errors import ConfigError

FLAG = "--custom-operators onnxruntime-extensions"
_PACKAGE, _LIBRARY = "onnxruntime_extensions", "_extensions_pydll"
_MISSING = re.compile(
    r"(ai\.onnx\.contrib|com\.microsoft\.extensions):(\w+)\(-?\d+\) is not a registered"
)


def library_path(setting: str) -> str | None:
    """The library of the setting `custom_operators`, None for `none`.

    Raises:
        ConfigError: its package is not installed.
    """
    if setting == "none":
        return None
    # Not imported: the package would import onnx, and torch where there is one.
    found = find_spec(_PACKAGE)
    for directory in (found and found.submodule_search_locations) or ():
        for suffix in EXTENSION_SUFFIXES:
            path = Path(directory, f"{_LIBRARY}{suffix}")
            if path.exists():
                return str(path)
    raise ConfigError(
        f"custom_operators: expected the package {setting}, got none: pip install {setting}"
    )


def missing_operator(message: str) -> str | None:
    """Why a graph needs the library, by ONNX Runtime's message; None if it says something else."""
    match = _MISSING.search(message)
    if match is None:
        return None
    return f"operator {match[2]} of {match[1]}: expected a server with {FLAG}, got one without"
