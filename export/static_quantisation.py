"""Static INT8 quantisation of a graph by ONNX Runtime's quantiser, whatever its source.

`int8` has the rules of INT8, and measures its accuracy.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from weir.bundle.contract import Tolerance
from weir.export import runtime

BATCH_ROWS = 64

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_PICTURE_AXES, _MOST_CHANNELS = len("NCHW"), 4
_OPERATORS = (*_WEIGHTED, "Relu", "Clip", "MaxPool", "AveragePool", "Concat", "Add")

Array = NDArray[Any]


def preprocess(model: bytes) -> bytes:
    """Fold constants, fuse nodes and infer shapes of a graph, as the quantiser expects it."""
    # ONNX Runtime's own function for this fails for tensors over 1 KiB that shapes are made of.
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="weir-int8-") as directory:
        path = Path(directory) / "model.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(path)
    return onnx.shape_inference.infer_shapes(optimised).SerializeToString()


def quantise(model: bytes, batches: Iterator[dict[str, Array]]) -> bytes:
    """Quantise weights per channel, and activations with ranges from batches of inputs."""

    def write(proto: onnx.ModelProto, path: Path) -> None:
        kinds = [node.op_type for node in proto.graph.node]
        first = min((kinds.index(kind) for kind in _WEIGHTED if kind in kinds), default=0)
        _repeat_along_width(proto.graph, proto.graph.node[:first])
        quantize_static(
            proto,
            path,
            _CalibrationReader(batches),
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=[node.name for node in proto.graph.node[:first]],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )

    return run_quantiser(onnx.load_from_string(model), write)


def _repeat_along_width(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Repeat per-channel constants of a picture's normalisation along its width; results are equal.

    ONNX Runtime computes quantised layers with the channels last, and moves the transpose of the
    pixels behind their normalisation. A per-channel constant is then applied to 1 to 4 numbers at a
    time: 280 us for 32 pictures of 32 x 32 x 3, against 26 us if it is repeated.
    """
    values = (*graph.input, *graph.value_info)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }
    constants = {each.name: each for each in graph.initializer}
    replaced: set[str] = set()
    for node in nodes:
        if node.op_type not in _ARITHMETIC:
            continue
        for place, name in enumerate(node.input):
            shape = shapes.get(node.input[1 - place], [])
            if name not in constants or len(shape) != _PICTURE_AXES:
                continue
            _, channels, _, width = shape
            constant = numpy_helper.to_array(constants[name])
            is_by_channel = constant.size == channels and constant.shape[-3:] in (
                (),
                (1, 1),
                (channels, 1, 1),
            )
            if is_by_channel and channels <= _MOST_CHANNELS and width > 0:
                repeated = np.tile(constant.reshape(channels, 1, 1), (1, 1, width))
                replaced.add(name)
                node.input[place] = f"{node.output[0]}_{name}_by_column"
                graph.initializer.append(numpy_helper.from_array(repeated, node.input[place]))
    for name in replaced.difference(_names_read(graph)):
        graph.initializer.remove(constants[name])


def _names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """The tensors that nodes read, those of subgraphs too, and the outputs."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names_read(inner)


def run_quantiser(
    proto: onnx.ModelProto, quantise: Callable[[onnx.ModelProto, Path], None]
) -> bytes:
    """Run a quantiser of ONNX Runtime, which writes a file, and check the result."""
    # The exporter has already folded and inferred what the quantiser's preprocessing would.
    proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory(prefix="weir-int8-") as directory:
        path = Path(directory) / "model.onnx"
        quantise(proto, path)
        quantised = onnx.load(path)
    del quantised.metadata_props[:]
    onnx.checker.check_model(quantised, full_check=True)
    return quantised.SerializeToString()


def fusion_tolerance(
    model: bytes, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> Tolerance:
    """The larger of a step of 256 of the widest output, and twice the effect of node fusion.

    The last bit of a value between two steps decides its rounding, and that bit depends on the
    processor as it depends on fusion. Later layers carry the difference on.
    """
    fused = runtime.run(runtime.open_session(model), outputs, inputs)
    single = runtime.run(runtime.open_session(model, is_optimised=False), outputs, inputs)
    step = max(float(np.ptp(array)) for array in fused.values()) / 255.0
    gap = max(float(np.abs(fused[name] - single[name]).max()) for name in outputs)
    return Tolerance(absolute=max(step, 2.0 * gap), relative=1e-3)


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """The calibration rows, one batch a call."""

    def __init__(self, batches: Iterator[dict[str, Array]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)
