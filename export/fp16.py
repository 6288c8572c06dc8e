"""FP16 conversion of a graph, and its simulation on a CPU.

Rules:

- Operators with weights run in FP16. Operators that move, pool or clip values follow their input.
  All others (normalisation, squares, powers, softmax) stay in FP32.
- Inputs and outputs keep their types, so clients see no difference.
- ONNX Runtime's converter (`onnxruntime.transformers.float16`) is not used: it rounds to FP16
  between two nodes that are to stay in FP32, and its graphs fail the ONNX checker.
- ONNX Runtime has no FP16 kernels for CPUs: it computes in FP32 and skips the rounding between
  nodes. `simulate` restores the rounding, so a CPU measures the values that a GPU stores.
"""

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from weir.bundle.contract import Tolerance
from weir.bundle.golden import Golden
from weir.export.errors import ExportError

_HALF_OPERATORS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}
_FOLLOWING_OPERATORS = {
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Add", "Concat", "Split", "Slice", "Pad"),
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMean"),
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"),
}


def convert(model: bytes) -> bytes:
    """Convert a graph to FP16; ExportError for a subgraph, or a weight beyond FP16's range."""
    proto = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(model), strict_mode=True, data_prop=True
    )
    _Rewriter(proto).rewrite()
    # The inferred types of intermediate values no longer hold.
    del proto.graph.value_info[:]
    return proto.SerializeToString()


def simulate(model: bytes) -> bytes:
    """An FP16 graph computed in FP32, with every value rounded to FP16."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), strict_mode=True)
    graph = proto.graph
    halves = {name for name, kind in _kinds(proto).items() if kind == TensorProto.FLOAT16}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast" or not halves & {*node.input, *node.output}:
            nodes.append(node)
            continue
        for at, name in enumerate(node.input):
            if name in halves:
                node.input[at] = f"{name}:{node.output[0]}"
                nodes.append(_cast(name, node.input[at], TensorProto.FLOAT))
        nodes.append(node)
        for at, name in enumerate(node.output):
            if name in halves:
                node.output[at] = f"{name}:exact"
                nodes.append(_cast(node.output[at], name, TensorProto.FLOAT16))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return proto.SerializeToString()


def tolerance(expected: Golden) -> Tolerance:
    """5e-3 of the largest expected output, or 5e-3 where that is below 1.

    FP16 keeps 11 bits, 5e-4 of a value, and rounds after each of dozens of layers. The networks
    of this project differ by up to 1.5e-3 of their largest logit in simulation (docs/bundle.md).
    """
    largest = max(float(np.abs(values).max(initial=1.0)) for values in expected.outputs.values())
    return Tolerance(absolute=5e-3 * largest, relative=5e-3)


class _Rewriter:
    """Walks the nodes in order, and casts each value at most once to the type that a node needs."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._graph = proto.graph
        self._floats = {name for name, kind in _kinds(proto).items() if kind == TensorProto.FLOAT}
        self._weights = {weight.name: weight for weight in proto.graph.initializer}
        # Names of a value as FP32 and as FP16, by its name in the given graph.
        inputs = [value.name for value in proto.graph.input]
        self._single = {name: name for name in [*inputs, *self._weights]}
        self._half: dict[str, str] = {}
        self._nodes: list[NodeProto] = []

    def rewrite(self) -> None:
        """Replace the nodes and weights of the given graph by those of the FP16 graph."""
        for node in self._graph.node:
            if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                raise ExportError(f"fp16: node {node.name}: expected no subgraph, got one")
            is_half = self._is_half(node)
            for at, name in enumerate(node.input):
                if name in self._floats:
                    node.input[at] = self._as_half(name) if is_half else self._as_single(name)
            produced = [name for name in node.output if name in self._floats]
            if is_half:
                node.output[:] = [
                    f"{name}:half" if name in produced else name for name in node.output
                ]
                self._half |= {name: f"{name}:half" for name in produced}
            else:
                self._single |= {name: name for name in produced}
            self._nodes.append(node)
        outputs = [value.name for value in self._graph.output]
        for name in outputs:
            if name in self._floats:
                self._as_single(name)
        used = {name for node in self._nodes for name in node.input} | {*outputs}
        weights = [weight for weight in self._graph.initializer if weight.name in used]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(weights)

    def _is_half(self, node: NodeProto) -> bool:
        values = [name for name in node.input if name in self._floats - self._weights.keys()]
        if node.op_type in _HALF_OPERATORS:
            return bool(values)
        return (
            node.op_type in _FOLLOWING_OPERATORS and bool(values) and self._half.keys() >= {*values}
        )

    def _as_half(self, name: str) -> str:
        if name not in self._half:
            self._half[name] = f"{name}:half"
            if name in self._weights:
                self._graph.initializer.append(_half_of(self._weights[name]))
            else:
                self._nodes.append(_cast(name, f"{name}:half", TensorProto.FLOAT16))
        return self._half[name]

    def _as_single(self, name: str) -> str:
        if name not in self._single:
            self._single[name] = name
            self._nodes.append(_cast(self._half[name], name, TensorProto.FLOAT))
        return self._single[name]


def _kinds(proto: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value and weight, by name."""
    graph = proto.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {weight.name: weight.data_type for weight in graph.initializer}


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast {target}", to=kind)


def _half_of(weight: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= float(np.finfo(np.float16).max):
        raise ExportError(f"fp16: {weight.name}: a weight of {largest:g} is beyond its range")
    # Values too small for FP16 become zero; the parity gate decides on the result.
    return numpy_helper.from_array(values.astype(np.float16), f"{weight.name}:half")
