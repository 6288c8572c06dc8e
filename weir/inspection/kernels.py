"""Kernels of the first convolution of a graph: its weights as numbers. Needs the package `onnx`.

Weights that are quantised, converted or passed through count as the numbers that the convolution
gets. Weights that the graph computes of its inputs are not found.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from weir.bundle.external_data import ExternalTensor, ResolvedGraph

Array = NDArray[Any]

_WEIGHTS = 1
_AXES_OF_LINES, _AXES_OF_PICTURES = 3, 4
# Nodes between the stored weights and the convolution.
_MOST_NODES = 8


@dataclass(frozen=True, slots=True)
class Kernels:
    """The weights of a convolution.

    Attributes:
        layer: name of the weights, without `.weight`.
        weights: float32 (outputs, inputs of a group, height, width); the height of a convolution
            over one axis is 1.
    """

    layer: str
    weights: NDArray[np.float32]


def first_convolution(graph: ResolvedGraph) -> Kernels | None:
    """The kernels of the first convolution over one or two axes; None if there is none."""
    model = onnx.load_model_from_string(graph.model)
    stored = StoredTensors(model.graph, {tensor.name: tensor for tensor in graph.external})
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) <= _WEIGHTS:
            continue
        weights = stored.value(node.input[_WEIGHTS])
        if weights is None or weights.ndim not in (_AXES_OF_LINES, _AXES_OF_PICTURES):
            continue
        if weights.ndim == _AXES_OF_LINES:
            weights = weights[:, :, np.newaxis]
        layer = stored.origin(node.input[_WEIGHTS]).removesuffix(".weight")
        return Kernels(layer, np.asarray(weights, np.float32))
    return None


class StoredTensors:
    """The tensors of a graph that do not depend on its inputs: initializers, and simple nodes."""

    def __init__(self, graph: onnx.GraphProto, external: Mapping[str, ExternalTensor]) -> None:
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._external = external
        self._producers = {
            output: node for node in graph.node for output in node.output if node.op_type in _VALUES
        }

    def origin(self, name: str) -> str:
        """The name of the initializer or constant that a tensor is made of."""
        for _ in range(_MOST_NODES):
            node = self._producers.get(name)
            if node is None or not node.input:
                return name
            name = node.input[0]
        return name

    def value(self, name: str, most_nodes: int = _MOST_NODES) -> Array | None:
        """The numbers of a tensor; None if they are not stored, or behind other nodes."""
        if name in self._external:
            return _external_value(self._external[name])
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        node = self._producers.get(name)
        if node is None or most_nodes == 0:
            return None
        # An optional input that is left out has an empty name.
        inputs = [self.value(each, most_nodes - 1) if each else None for each in node.input]
        if any(value is None and each for value, each in zip(inputs, node.input, strict=True)):
            return None
        return _VALUES[node.op_type](node, inputs)


def _external_value(tensor: ExternalTensor) -> Array:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _constant(node: NodeProto, _: list[Array | None]) -> Array | None:
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.type == AttributeProto.TENSOR:
            return numpy_helper.to_array(attribute.t)
    return None


def _identity(_: NodeProto, inputs: list[Array | None]) -> Array | None:
    return inputs[0]


def _dequantised(node: NodeProto, inputs: list[Array | None]) -> Array | None:
    """(x - zero point) * scale: for the whole tensor, or for each index of an axis."""
    quantised, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    attributes = _attributes(node)
    if quantised is None or scale is None or attributes.get("block_size"):
        return None
    if scale.ndim == 1:
        shape = [1] * quantised.ndim
        shape[attributes.get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
    centred = quantised.astype(np.float32) - (0 if zero is None else zero.astype(np.float32))
    return np.asarray(centred * scale.astype(np.float32), np.float32)


_VALUES: Mapping[str, Callable[[NodeProto, list[Array | None]], Array | None]] = {
    "Cast": _identity,
    "Constant": _constant,
    "DequantizeLinear": _dequantised,
    "Identity": _identity,
}
