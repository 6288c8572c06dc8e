"""Remarks for the operator on what lies in a model repository and is not served."""

from collections.abc import Iterable, Sequence

from weir.bundle.contract import FILE_NAME as CONTRACT_FILE
from weir.bundle.errors import InvalidName
from weir.bundle.escaping import short_repr
from weir.bundle.model_formats import is_model_file
from weir.bundle.reader import MODEL
from weir.bundle.repository import check_name
from weir.bundle.versions import FILE_NAME as VERSIONS_FILE
from weir.server.repository import triton
from weir.server.repository.plain_model import ONNX_SUFFIX

# The root of a disk's own file system has it.
_LOST_AND_FOUND = "lost+found"


def on_file(name: str) -> str | None:
    """The remark on a file in the repository itself; None if it is no part of a model."""
    if name.lower().endswith(ONNX_SUFFIX):
        return (
            f"file ignored name={short_repr(name)} expected=NAME/VERSION/{MODEL}, "
            "or one file alone: `weir serve FILE`"
        )
    if is_model_file(name):
        return f"file ignored name={short_repr(name)} expected=ONNX: NAME/VERSION/{MODEL}"
    if name in (triton.FILE_NAME, VERSIONS_FILE, CONTRACT_FILE):
        return f"file ignored name={short_repr(name)} expected=NAME/ with its versions beside it"
    return None


def on_directory_name(name: str) -> str | None:
    """The remark on a directory in the repository; None if a model may have its name."""
    try:
        check_name(name)
    except InvalidName as error:
        return None if name == _LOST_AND_FOUND else f"directory ignored reason={error}"
    return None


def on_versions(model: str, names: Iterable[str]) -> list[str]:
    """Remarks on entries of a model's directory that look like versions and are not."""
    return [
        f"not a version directory model={model} name={short_repr(name)} "
        "expected=a directory named by a number from 1, such as 1"
        for name in names
    ]


def on_model(model: str, files: Sequence[str], *, has_versions: bool) -> str | None:
    """The remark on a model's directory without versions, or with a model file beside them.

    Args:
        files: the names of the files in it.
    """
    got = _first_model_file(files)
    if has_versions and got is None:
        return None
    what = (
        "model file beside the versions ignored"
        if has_versions
        else "model has no version directory"
    )
    return (
        f"{what} model={model} expected={model}/{'VERSION' if has_versions else 1}/{MODEL}"
        f"{f' got={short_repr(got)}' if got else ''}"
    )


def on_version(model: str, number: int, files: Sequence[str]) -> str | None:
    """The remark on a version whose only model file is no ONNX file; None for any other."""
    got = _first_model_file(files)
    if got is None or got.endswith(ONNX_SUFFIX) or CONTRACT_FILE in files:
        return None
    return (
        f"version has no ONNX file model={model} version={number} "
        f"expected={MODEL} got={short_repr(got)}"
    )


def _first_model_file(files: Sequence[str]) -> str | None:
    graphs = [name for name in files if name.endswith(ONNX_SUFFIX)]
    return next(iter((*graphs, *filter(is_model_file, files))), None)
