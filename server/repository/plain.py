"""A plain model's files: an ONNX graph without a contract, and what Triton's `config.pbtxt` says of it.

The configuration and the labels lie beside the version directories, as Triton has them:
`<models>/<name>/config.pbtxt`, `<models>/<name>/<version>/model.onnx`.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weir.bundle import reader
from weir.bundle.contract import FILE_NAME
from weir.bundle.repository import versions
from weir.server.errors import ModelLoadError
from weir.server.repository import triton_config
from weir.server.repository.triton_config import TritonConfig

logger = logging.getLogger(__name__)

_MAX_LABEL_BYTES = 1 << 24
_KINDS = {"cuda": "KIND_GPU", "cpu": "KIND_CPU"}


@dataclass(frozen=True, slots=True)
class PlainModel:
    """What there is of a version; `config` is None without a `config.pbtxt`."""

    graph: bytes
    config: TritonConfig | None
    labels: Mapping[str, Sequence[str]]


def read(directory: Path) -> PlainModel:
    """The files of a version directory that has no contract.

    Raises:
        ModelLoadError: the configuration or the labels cannot be used.
        BrokenBundle: a file is missing, linked, or too large.
    """
    config = read_config(directory.parent)
    graph = reader.read_plain(directory, config.file if config else reader.MODEL)
    _check_siblings(directory)
    if config is None:
        return PlainModel(graph, None, {})
    labels = {
        output: _labels(directory.parent, file) for output, file in config.label_files.items()
    }
    return PlainModel(graph, config, labels)


def _check_siblings(directory: Path) -> None:
    """Beside bundles, a directory without a contract is a bundle that has not arrived yet."""
    try:
        others = versions(directory.parent)
    except OSError:
        return
    for number in others:
        if os.path.lexists(directory.parent / str(number) / FILE_NAME):
            raise ModelLoadError(
                f"{directory.name}: expected {FILE_NAME}, as version {number} of the model has one"
            )


def read_config(model_directory: Path) -> TritonConfig | None:
    """What the `config.pbtxt` of a model says; None if there is none. Raises as `read` does."""
    data = reader.read_beside(model_directory, triton_config.FILE_NAME, triton_config.MAX_BYTES)
    return None if data is None else triton_config.parse(data, model_directory.name)


def warn(model_name: str, config: TritonConfig | None, provider: str) -> None:
    """Tell the operator what of a configuration is without effect."""
    if config is None:
        return
    if config.unused:
        logger.warning(
            "config.pbtxt has fields without effect model=%s fields=%s",
            model_name, ", ".join(config.unused),
        )  # fmt: skip
    for other in sorted(config.providers - {provider}):
        logger.warning(
            "config.pbtxt asks for another device model=%s instance_group.kind=%s provider=%s",
            model_name, _KINDS[other], provider,
        )  # fmt: skip


def _labels(model_directory: Path, file: str) -> list[str]:
    data = reader.read_beside(model_directory, file, _MAX_LABEL_BYTES)
    if data is None:
        raise ModelLoadError(
            f"{file}: expected the labels beside the version directories, got none"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelLoadError(f"{file}: expected UTF-8, {error.reason}") from error
    # Triton counts no labels, so files end in as many blank lines as they like.
    text = text.replace("\r\n", "\n").rstrip("\n")
    return text.split("\n") if text else []
