"""Source of an import: an ONNX file, its external data read into it, checked.

Rules:

- External data lie in the folder of the file or below it. No link is followed.
- The checker of the `onnx` package and ONNX Runtime must both accept the file. A complaint of shape
  inference alone is a remark: some valid files cause one.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError

from weir.bundle import repository_files
from weir.bundle.errors import BrokenBundle
from weir.bundle.model_formats import model_format
from weir.export import large_graph, runtime
from weir.export.errors import BrokenGraph

# External data, unlike a graph, may be larger than 2 GiB.
_MOST_DATA_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A checked model.

    Attributes:
        model: its messages, with the weights inside if they have less than 2 GiB.
        data: the same as bytes.
        external_data: the file of larger weights, by the name that the model has for it.
        files: the hash of each file that was read, by name.
        remarks: what shape inference complains about.
    """

    model: onnx.ModelProto
    data: bytes
    external_data: dict[str, bytes]
    files: dict[str, str]
    remarks: tuple[str, ...] = ()

    @property
    def producer(self) -> str:
        """The program that wrote the file, with its version."""
        parts = (self.model.producer_name, self.model.producer_version)
        return " ".join(part for part in parts if part) or "an unnamed producer"

    @property
    def opsets(self) -> dict[str, int]:
        """The version of each operator set."""
        return {each.domain or "ai.onnx": each.version for each in self.model.opset_import}


def read(file: Path) -> SourceModel:
    """Read and check an ONNX file.

    Raises:
        BrokenGraph: it is no valid ONNX file, or ONNX Runtime cannot open it.
        BundleError: a file is a link, missing or too large.
    """
    # The caller's own link, such as Hugging Face's cache has them, is followed.
    target = file.resolve()
    content = repository_files.read_file(target)
    files = {file.name: hashlib.sha256(content).hexdigest()}
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise BrokenGraph(_foreign(file, "other bytes")) from error
    if not model.HasField("graph"):
        raise BrokenGraph(_foreign(file, "other bytes" if content else "an empty file"))
    if not model.graph.output:
        raise BrokenGraph("expected an ONNX file with a graph that has outputs, got none")
    files |= _inline(model, file.parent.resolve(), target.parent)
    external_data = {}
    if large_graph.weight_bytes(model) > large_graph.MOST_INSIDE_BYTES:
        external_data[large_graph.DATA] = large_graph.take_out_weights(model)
    data = content if len(files) == 1 else model.SerializeToString()
    return SourceModel(model, data, external_data, files, check(model, data, external_data))


def check(
    model: onnx.ModelProto, data: bytes, external_data: Mapping[str, bytes]
) -> tuple[str, ...]:
    """Remarks of shape inference; BrokenGraph if the checker or ONNX Runtime refuses the model."""
    try:
        large_graph.check_file(model, infers_shapes=False)
    except onnx.checker.ValidationError as error:
        raise BrokenGraph(f"the graph is not valid ONNX: {_one_line(error)}") from error
    try:
        runtime.open_session(data, external_data=external_data)
    except Exception as error:  # ONNX Runtime raises many unrelated classes
        raise BrokenGraph(f"ONNX Runtime refuses the graph: {runtime.reason(error)}") from error
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        return (f"shape inference: {_one_line(error)}",)
    return ()


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graph_tensors(graph)


def _foreign(file: Path, content: str) -> str:
    """The refusal of a file that is no ONNX, with its format if its suffix names one."""
    known = model_format(file.name)
    if known is None:
        return f"expected an ONNX file, got {content}"
    return f"expected an ONNX file, got {known} ({file.suffix}): export the model to ONNX first"


def _inline(model: onnx.ModelProto, folder: Path, targets: Path) -> dict[str, str]:
    """Read external data into the model; the hash of each file, by its location.

    A link leads into the folder, or to `targets`, where the graph's own link leads.
    """
    contents: dict[str, memoryview] = {}
    for tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in contents:
            contents[location] = memoryview(_read_data(folder, location, targets))
        data = contents[location]
        first = _number(tensor, entries, "offset", 0)
        count = _number(tensor, entries, "length", len(data) - first)
        if first + count > len(data):
            raise BrokenBundle(
                f"{location}: expected {first + count} bytes for tensor {tensor.name!r}, "
                f"got {len(data)}"
            )
        tensor.raw_data = bytes(data[first : first + count])
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def _read_data(folder: Path, location: str, targets: Path) -> bytes:
    parts = PurePosixPath(location).parts
    is_inside = (
        bool(parts) and ".." not in parts and not PurePosixPath(location).is_absolute()
    ) and not PureWindowsPath(location).is_absolute()
    path = (folder / location).resolve()
    if not is_inside or not {folder, targets} & {*path.parents}:
        raise BrokenBundle(
            f"{location or '(no location)'}: expected external data in the folder of the graph, "
            "got another place or a link out of it"
        )
    return repository_files.read_file(path, _MOST_DATA_BYTES)


def _number(tensor: onnx.TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not text.isdecimal():
        raise BrokenBundle(f"tensor {tensor.name!r}: {key}: expected a number, got {text!r}")
    return int(text)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "; ".join(lines) or type(error).__name__
    return text[:500]
