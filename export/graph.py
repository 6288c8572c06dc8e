"""ONNX graph of a network: exported by torch, checked, and stripped of local paths."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from weir.export import large_graph
from weir.export.errors import BrokenGraph, NotExportable
from weir.export.samples import take, widen
from weir.export.spec import ExportSpec

logger = logging.getLogger(__name__)

# torch's exporter writes opset 18 directly and converts the graph for any other. ONNX Runtime has
# CUDA kernels for its operators; with opset 22 it has none for recurrent layers.
OPSET = 18

# Size of the traced batch along its axes: torch treats an axis of size 1 as a constant.
_TRACED_ROWS = 3
_TRACED_ENTRIES = 2


def convert(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    spec: ExportSpec,
    large: dict[str, bytes] | None = None,
) -> bytes:
    """Export `module` as an ONNX file with varying axes by name, and with its weights inside.

    Args:
        large: takes the weights of a graph of 2 GiB and more, by the file's name.
    """
    traced = widen(take(examples, spec, 0, _TRACED_ROWS), spec, _TRACED_ENTRIES)
    model = _export(module, traced, spec)
    _strip(model)
    size = large_graph.weight_bytes(model)
    if size > large_graph.MOST_INSIDE_BYTES:
        if large is None:
            raise NotExportable(f"expected weights of less than 2 GiB, got {size} bytes")
        large[large_graph.DATA] = large_graph.take_out_weights(model)
    check(model, list(examples), spec)
    return model.SerializeToString()


def check(model: onnx.ModelProto, inputs: list[str], spec: ExportSpec) -> None:
    """Raise BrokenGraph unless the graph is valid and has the names and axes of `spec`."""
    try:
        large_graph.check_file(model, infers_shapes=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BrokenGraph(f"the graph is not valid ONNX: {error}") from error
    graph = model.graph
    _check_names("inputs", inputs, graph.input)
    _check_names("outputs", list(spec.outputs), graph.output)
    for value in graph.input:
        expected = dict(spec.axes_of(value.name))
        actual = {at: axis for at, axis in enumerate(_axes(value)) if isinstance(axis, str)}
        if actual != expected:
            raise BrokenGraph(
                f"input {value.name}: expected varying axes {expected}, got {actual}: the network "
                "or torch fixes the others to the size of the examples"
            )
    for value in [*graph.input, *graph.output]:
        # The server concatenates requests along the first axis of every tensor.
        if spec.batch_axis is not None and _axes(value)[:1] != [spec.batch_axis]:
            raise BrokenGraph(
                f"tensor {value.name}: expected axis {spec.batch_axis!r} first, got {_axes(value)}"
            )
    if not spec.padded_axes:
        return
    # The server cuts a row out of an output by the names of its axes, so each must be an input's.
    # torch names an axis after the input's axis of the same size, whatever was added and cut off on
    # the way. Another name is another size, as `time - 2` or `(time - 1)//2 + 1`.
    known = {spec.batch_axis, *spec.padded_axes}
    for value in graph.output:
        if any(isinstance(axis, str) and axis not in known for axis in _axes(value)):
            raise BrokenGraph(
                f"output {value.name}: expected varying axes among {sorted(map(str, known))}, "
                f"which separate rows of unequal length, got {_axes(value)}"
            )


def _export(module: nn.Module, inputs: dict[str, Tensor], spec: ExportSpec) -> onnx.ModelProto:
    names = {axis for name in inputs for axis in spec.axes_of(name).values()}
    dimensions = {axis: torch.export.Dim(axis) for axis in names}
    try:
        _reset_dispatch()
        with _logged():
            program = torch.onnx.export(
                module,
                kwargs=inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes={
                    name: {at: dimensions[axis] for at, axis in spec.axes_of(name).items()}
                    for name in inputs
                },
                output_names=list(spec.outputs),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch raises errors of user code and many classes of its own
        reason = _reason(error, module, inputs)
        # The cause is pages of torch's own code.
        logger.info("torch: export failed", exc_info=error)
        raise NotExportable(f"torch cannot export this network: {reason}") from None
    if program is None:
        raise NotExportable("torch exported nothing")
    return program.model_proto


def _root(error: BaseException) -> str:
    """The first line of the first cause, which torch wraps in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


def _reset_dispatch() -> None:
    """Make torch look up the kernels of recurrent layers again, as in the first export.

    Since an export, torch 2.13 uses other kernels for them in its trace, and the second network
    with the same layer is exported with the length of its example.
    """
    for operator in ("gru", "lstm", "rnn_relu", "rnn_tanh"):
        packet = getattr(torch.ops.aten, operator)
        for overload in packet.overloads():
            # Private; a torch without it is tested by the second export.
            getattr(getattr(packet, overload), "_dispatch_cache", {}).clear()


@contextmanager
def _logged() -> Iterator[None]:
    """Log the warnings of torch's exporter: a dozen lines about its own code in each export."""
    torch_logger = logging.getLogger("torch.onnx")
    propagates, handlers = torch_logger.propagate, torch_logger.handlers
    torch_logger.propagate, torch_logger.handlers = False, [_Forward()]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            yield
    finally:
        torch_logger.propagate, torch_logger.handlers = propagates, handlers
        for warning in caught:
            logger.info("torch: %s: %s", warning.category.__name__, warning.message)


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.info("torch: %s", record.getMessage())


def _reason(error: BaseException, module: nn.Module, inputs: Mapping[str, Tensor]) -> str:
    """Why torch cannot export a network."""
    calls = _Calls()  # type: ignore[no-untyped-call]
    with suppress(Exception), torch.no_grad(), calls:
        module(**inputs)
    if calls.is_packed:
        return (
            "it calls pack_padded_sequence, which has no ONNX operator; "
            "weir.training.models.recurrent.Recurrent.from_torch(layer) gives the same results "
            "from the padded rows and their lengths"
        )
    return _root(error)


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Detects a network that packs sequences."""

    is_packed = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.is_packed |= func is torch.ops.aten._pack_padded_sequence.default  # noqa: SLF001
        return func(*args, **(kwargs or {}))


def _strip(model: onnx.ModelProto) -> None:
    """Remove the source lines and local paths that torch writes into every node."""
    del model.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]
        _strip_nodes(function.node)
    _strip_graph(model.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    del graph.metadata_props[:]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        del node.metadata_props[:]
        node.ClearField("doc_string")
        for attribute in node.attribute:
            # Reading an absent `g` would create it and make the attribute invalid.
            inner = [attribute.g] if attribute.HasField("g") else []
            for graph in [*inner, *attribute.graphs]:
                _strip_graph(graph)


def _axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def _check_names(kind: str, expected: list[str], values: Iterable[onnx.ValueInfoProto]) -> None:
    actual = [value.name for value in values]
    if actual != expected:
        raise BrokenGraph(f"{kind}: expected {expected}, got {actual}")
