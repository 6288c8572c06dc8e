"""Static INT8 quantisation of LSTM layers: ranges of activations are fixed at export.

ONNX Runtime's integer kernel, `DynamicQuantizeLSTM`, takes the range of its input from the whole
batch, and the range of its states from all rows at each step. A row's result would then depend on
the other rows. The ranges are fixed inside the layer, at no measurable cost:

- The input is clipped to its range in the calibration rows. Two more columns, whose weights are
  zero, hold the ends of that range.
- Two more units hold the states 1 and -1, the limits of every state: their gates are open and their
  cells saturated. No other unit reads them, and they are cut off the outputs.
- An initial state that the layer is given may exceed 1, the limit of every later one. It is clipped
  to the largest size that it has in the calibration rows, and at least 1; the two added units start
  at the two ends.

The rewritten layer in FP32 computes what the layer computed, apart from the clipping.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from weir.export import runtime, static_quantisation
from weir.export.errors import ExportError

_ADDED = 2
_OPEN_GATE = 50.0
# tanh of a float32 is 1 from 9 on.
_SATURATED_CELL = 20.0
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_INITIAL_STATE = _INPUTS.index("initial_h")
_PEEPHOLES = _INPUTS.index("P")
# The first opsets with the forms of `Shape` and `Pad` that are added.
_SHAPE_OF_AXES, _PAD_WITH_AXES = 15, 18
_ATTRIBUTES = {"hidden_size", "direction"}
# PyTorch writes these with 0, their default.
_ABSENT_IF_ZERO = {"input_forget", "layout"}

Array = NDArray[Any]
Range = tuple[float, float]


def quantise(model: bytes, batches: Iterable[Mapping[str, Array]]) -> bytes:
    """Quantise every LSTM layer, with the ranges of its input in batches of calibration rows.

    Raises:
        ExportError: a layer has a form without an integer kernel, or computed weights, or the graph
            an opset without the operators that are added.
    """
    proto = onnx.load_from_string(model)
    _check_opset(proto)
    ranges = _observed_ranges(proto, batches)
    fix_ranges(proto, ranges)

    def write(proto: onnx.ModelProto, path: Path) -> None:
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=["LSTM"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )

    return static_quantisation.run_quantiser(proto, write)


def _check_opset(proto: onnx.ModelProto) -> None:
    layers = [node for node in proto.graph.node if node.op_type == "LSTM"]
    has_states = any(any(node.input[_INITIAL_STATE:_PEEPHOLES]) for node in layers)
    needed = _PAD_WITH_AXES if has_states else _SHAPE_OF_AXES
    opset = next(each.version for each in proto.opset_import if each.domain in {"", "ai.onnx"})
    if layers and opset < needed:
        states = " with a given initial state" if has_states else ""
        raise ExportError(
            f"int8: expected opset {needed} or later for an LSTM layer{states}, got {opset}"
        )


def _observed_ranges(
    proto: onnx.ModelProto, batches: Iterable[Mapping[str, Array]]
) -> dict[str, Range]:
    """Least and greatest value of the input and initial state of every LSTM layer, by tensor."""
    names = list(
        dict.fromkeys(
            name
            for node in proto.graph.node
            if node.op_type == "LSTM"
            for name in (node.input[0], *node.input[_INITIAL_STATE : _INITIAL_STATE + 1])
            if name
        )
    )
    observed = onnx.ModelProto()
    observed.CopyFrom(proto)
    known = {value.name for value in observed.graph.output}
    observed.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    session = runtime.open_session(observed.SerializeToString())
    # Zero is in every range: the kernel adds it.
    least, greatest = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for batch in batches:
        for name, array in runtime.run(session, names, batch).items():
            least[name] = min(least[name], float(array.min()))
            greatest[name] = max(greatest[name], float(array.max()))
    return {name: (least[name], greatest[name]) for name in names}


def fix_ranges(proto: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
    """Rewrite every LSTM layer so that its kernel meets the same ranges in every batch.

    Args:
        ranges: of the layers' inputs and initial states, by tensor.
    """
    weights = {each.name: each for each in proto.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        if node.op_type == "LSTM":
            layer = _Layer(node, weights, prefix=f"{next(filter(None, node.output))}.int8")
            nodes += layer.rewritten(ranges)
            proto.graph.initializer.extend(layer.constants)
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in proto.graph.initializer if each.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    # Sizes of the rewritten layers differ.
    del proto.graph.value_info[:]


class _Layer:
    """One LSTM layer: D directions, H units, F columns of input, T steps of B rows."""

    def __init__(
        self, node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], *, prefix: str
    ) -> None:
        self._node, self._prefix = node, prefix
        self.constants: list[onnx.TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._tensors = dict(zip(_INPUTS, [*node.input, *[""] * len(_INPUTS)], strict=False))
        self._attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        unknown = sorted(
            name
            for name, value in self._attributes.items()
            if name not in _ATTRIBUTES and not (name in _ABSENT_IF_ZERO and value == 0)
        )
        if unknown or self._tensors["P"]:
            raise ExportError(
                f"int8: expected an LSTM layer without {(unknown or ['peepholes'])[0]}"
            )
        absent = [name for name in ("W", "R") if self._tensors[name] not in weights]
        if absent:
            raise ExportError(f"int8: expected constant weights {absent[0]} of an LSTM layer")
        self._input = numpy_helper.to_array(weights[self._tensors["W"]])  # (D, 4·H, F)
        self._recurrent = numpy_helper.to_array(weights[self._tensors["R"]])  # (D, 4·H, H)
        self._directions, self._units = len(self._input), self._recurrent.shape[2]
        if self._tensors["B"]:
            self._bias = numpy_helper.to_array(weights[self._tensors["B"]])  # (D, 8·H)
        else:
            self._bias = np.zeros((self._directions, 8 * self._units), np.float32)

    def rewritten(self, ranges: Mapping[str, Range]) -> list[onnx.NodeProto]:
        """The nodes that replace the layer."""
        vectors = self._tensors["X"]  # (T, B, F)
        given = self._tensors["initial_h"]
        limit = max(1.0, *map(abs, ranges[given])) if given else 1.0
        state = self._node_of(
            "Concat",
            [
                self._constant("directions", np.array([self._directions], np.int64)),
                self._node_of("Shape", [vectors], "rows", start=1, end=2),
                self._constant("units", np.array([self._units + _ADDED], np.int64)),
            ],
            "state_shape",
            axis=0,
        )
        layer = helper.make_node(
            "LSTM",
            [
                self._with_ends(vectors, ranges[vectors]),
                *self._weights(),
                self._tensors["sequence_lens"],
                self._initial("initial_h", self._clipped(given, -limit, limit), state, limit),
                self._initial("initial_c", self._tensors["initial_c"], state, _SATURATED_CELL),
            ],
            [name and f"{name}.int8" for name in self._node.output],
            hidden_size=self._units + _ADDED,
            direction=self._attributes.get("direction", b"forward").decode(),
        )
        self._nodes.append(layer)
        first, last = (
            self._constant(name, np.array([at], np.int64))
            for name, at in (("first", 0), ("last", self._units))
        )
        axis = self._constant("axis", np.array([-1], np.int64))
        for own, wide in zip(self._node.output, layer.output, strict=True):
            if own:
                self._nodes.append(helper.make_node("Slice", [wide, first, last, axis], [own]))
        return self._nodes

    def _with_ends(self, vectors: str, ends: Range) -> str:
        """The input clipped to a range, with a column for each end: (T, B, F + 2)."""
        least, greatest = np.array(ends, np.float32)
        clipped = self._clipped(vectors, least, greatest)
        places = self._node_of("Shape", [vectors], "places", start=0, end=2)
        count = self._constant("columns", np.array([_ADDED], np.int64))
        shape = self._node_of("Concat", [places, count], "ends_shape", axis=0)
        columns = self._constant("ends", np.array([least, greatest]))
        added = self._node_of("Expand", [columns, shape], "end_columns")
        return self._node_of("Concat", [clipped, added], "input", axis=2)

    def _clipped(self, tensor: str, least: float, greatest: float) -> str:
        """A tensor clipped to a range; an absent one stays absent."""
        if not tensor:
            return ""
        limits = {"least": least, "greatest": greatest}
        names = [self._constant(f"{tensor}.{name}", np.float32(limits[name])) for name in limits]
        return self._node_of("Clip", [tensor, *names], f"{tensor}.clipped")

    def _initial(self, name: str, given: str, shape: str, size: float) -> str:
        """The initial state (D, B, H + 2); of the added units, `size` and `-size`."""
        value = np.zeros(self._units + _ADDED, np.float32)
        value[self._units :] = size, -size
        added = self._constant(f"{name}.added", value)
        if not given:
            return self._node_of("Expand", [added, shape], name)
        pads = self._constant(f"{name}.pads", np.array([0, _ADDED], np.int64))
        axis = self._constant(f"{name}.axis", np.array([2], np.int64))
        wide = self._node_of("Pad", [given, pads, "", axis], f"{name}.wide")
        return self._node_of("Add", [wide, added], name)

    def _weights(self) -> list[str]:
        """W (D, 4·(H+2), F+2), R (D, 4·(H+2), H+2) and B (D, 8·(H+2)), gates i, o, f, c."""
        directions, units, wide = self._directions, self._units, self._units + _ADDED
        columns = self._input.shape[2]
        inputs = np.zeros((directions, 4, wide, columns + _ADDED), np.float32)
        inputs[:, :, :units, :columns] = self._input.reshape(directions, 4, units, columns)
        recurrent = np.zeros((directions, 4, wide, wide), np.float32)
        recurrent[:, :, :units, :units] = self._recurrent.reshape(directions, 4, units, units)
        bias = np.zeros((directions, 2, 4, wide), np.float32)
        bias[..., :units] = self._bias.reshape(directions, 2, 4, units)
        bias[:, 0, :3, units:] = _OPEN_GATE
        bias[:, 0, 3, units:] = _OPEN_GATE, -_OPEN_GATE
        return [
            self._constant("W", inputs.reshape(directions, 4 * wide, columns + _ADDED)),
            self._constant("R", recurrent.reshape(directions, 4 * wide, wide)),
            self._constant("B", bias.reshape(directions, 8 * wide)),
        ]

    def _constant(self, name: str, value: Array | np.float32) -> str:
        full = f"{self._prefix}.{name}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def _node_of(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        full = f"{self._prefix}.{name}"
        self._nodes.append(helper.make_node(kind, inputs, [full], **attributes))
        return full
