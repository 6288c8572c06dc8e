"""Plain model: an ONNX graph without a contract, read with its `config.pbtxt` and labels.

    <models>/<name>/<version>/model.onnx    the graph, with its external data
    <models>/<name>/config.pbtxt            the configuration (`triton`)
    <models>/<name>/<labels>                label files that the configuration names

An ONNX file that is served alone may have its `config.pbtxt` and labels beside it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from weir.bundle import graph_nodes, reader
from weir.bundle.contract import FILE_NAME as CONTRACT_FILE
from weir.bundle.external_data import ResolvedGraph
from weir.bundle.protobuf_wire import MalformedError
from weir.bundle.repository import is_version_name, versions
from weir.bundle.repository_files import NO_LINKS, LinkRoots
from weir.server.errors import ModelLoadError
from weir.server.repository import triton
from weir.server.repository.triton import TritonConfig

ONNX_SUFFIX = ".onnx"
_MAX_LABEL_BYTES = 1 << 24
_IR_OF_DEFAULTS = 4
_IR_VERSION_4 = b"\x08\x04"


@dataclass(frozen=True, slots=True)
class PlainModel:
    """Files of a plain model's version; `config` is None without a `config.pbtxt`."""

    graph: ResolvedGraph
    file: str
    config: TritonConfig | None
    labels: Mapping[str, Sequence[str]]


def read(path: Path, name: str | None = None, links: LinkRoots = NO_LINKS) -> PlainModel:
    """Read a plain model.

    Args:
        path: a version directory that has no contract, or an ONNX file.
        name: in requests; None for that of the model's directory.

    Raises:
        ModelLoadError: the configuration or the labels cannot be used.
        BrokenBundle: a file is missing, linked, or too large.
    """
    beside, is_file = config_directory(path), is_graph_file(path)
    config = triton.read_config(beside, "" if is_file else name, links)
    if is_file:
        directory, file = path.parent, path.name
        config = replace(config, file=file) if config else None
    else:
        directory, file = path, config.file if config else reader.MODEL
    graph = reader.read_without_contract(directory, file, links)
    if not is_file:
        _check_siblings(directory)
    files = config.label_files if config else {}
    labels = {output: _read_labels(beside, each, links) for output, each in files.items()}
    return PlainModel(_with_defaults(graph, config), file, config, labels)


def is_graph_file(path: Path) -> bool:
    """Whether a version is an ONNX file alone, and no directory."""
    return path.suffix == ONNX_SUFFIX and not path.is_dir()


def config_directory(path: Path) -> Path:
    """Where the configuration of a version lies: beside the directories of the versions.

    That of an ONNX file alone may lie beside the file.
    """
    if not is_graph_file(path):
        return path.parent
    directory = path.parent
    if is_version_name(directory.name) and not os.path.lexists(directory / triton.FILE_NAME):
        return directory.parent
    return directory


def _with_defaults(graph: ResolvedGraph, config: TritonConfig | None) -> ResolvedGraph:
    """The graph, such that a request may send an initializer that the configuration describes.

    In a file of IR version 3 every initializer is an input, and ONNX Runtime takes it for a
    constant. From version 4 on it takes one that is an input for its default. Constants are faster,
    so the file is left as it is where nothing asks for an input.
    """
    configured = {tensor.name.encode() for tensor in config.inputs} if config else set()
    if not configured:
        return graph
    try:
        model = graph_nodes.read(graph.model)
        is_asked_for = model.ir_version < _IR_OF_DEFAULTS and not configured.isdisjoint(
            model.graph.initializers()
        )
    except MalformedError as error:
        raise ModelLoadError(f"expected an ONNX file, got malformed bytes: {error}") from error
    # As in any protobuf message, the last value of a field counts.
    return replace(graph, model=graph.model + _IR_VERSION_4) if is_asked_for else graph


def _check_siblings(directory: Path) -> None:
    """Beside bundles, a directory without a contract is a bundle that is not complete yet."""
    try:
        others = versions(directory.parent)
    except OSError:
        return
    for number in others:
        if os.path.lexists(directory.parent / str(number) / CONTRACT_FILE):
            raise ModelLoadError(
                f"{directory.name}: expected {CONTRACT_FILE}, "
                f"as version {number} of the model has one"
            )


def _read_labels(model_directory: Path, file: str, links: LinkRoots) -> list[str]:
    data = reader.read_model_file(model_directory, file, _MAX_LABEL_BYTES, links)
    if data is None:
        raise ModelLoadError(
            f"{file}: expected the labels beside the version directories, got none"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelLoadError(f"{file}: expected UTF-8, {error.reason}") from error
    # Triton does not count labels, so a file may end in blank lines.
    text = text.replace("\r\n", "\n").rstrip("\n")
    return text.split("\n") if text else []
