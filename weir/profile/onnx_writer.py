"""Writer of small ONNX graphs, on the protobuf wire: no `onnx` is needed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weir.bundle.protobuf_wire import Field, write_fields

Array = NDArray[Any]

# The numbers of onnx.proto for the element types of numpy.
_ELEMENT_TYPES = {
    np.dtype(kind): number
    for kind, number in (
        ("f4", 1),
        ("u1", 2),
        ("i1", 3),
        ("i4", 6),
        ("i8", 7),
        ("f2", 10),
        ("f8", 11),
    )
}
_OPSET, _IR_VERSION = 18, 10
_INTEGER_ATTRIBUTE, _INTEGERS_ATTRIBUTE = 2, 7


class NewNode(NamedTuple):
    """A node to write; its attributes are integers or lists of integers."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, int | Sequence[int]] = {}


def write_model(
    nodes: Sequence[NewNode],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array],
    outputs: Sequence[str],
) -> bytes:
    """An ONNX file of these nodes.

    Args:
        inputs: arrays that have the types and shapes of the graph's inputs.
        outputs: names; the graph declares no types for them.
    """
    graph: list[Field] = [(1, _node(node)) for node in nodes]
    graph.append((2, b"graph"))
    graph += [(5, _constant(name, array)) for name, array in constants.items()]
    graph += [(11, _input(name, array)) for name, array in inputs.items()]
    graph += [(12, write_fields([(1, name.encode())])) for name in outputs]
    opset = write_fields([(1, b""), (2, _OPSET)])
    return write_fields([(1, _IR_VERSION), (8, opset), (7, write_fields(graph))])


def _node(node: NewNode) -> bytes:
    fields: list[Field] = [(1, name.encode()) for name in node.inputs]
    fields += [(2, name.encode()) for name in node.outputs]
    fields.append((4, node.operator.encode()))
    fields += [(5, _attribute(name, value)) for name, value in node.attributes.items()]
    return write_fields(fields)


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return write_fields([(1, name.encode()), (3, value), (20, _INTEGER_ATTRIBUTE)])
    integers: list[Field] = [(8, each) for each in value]
    return write_fields([(1, name.encode()), *integers, (20, _INTEGERS_ATTRIBUTE)])


def _constant(name: str, array: Array) -> bytes:
    sizes: list[Field] = [(1, size) for size in array.shape]
    return write_fields(
        [*sizes, (2, _ELEMENT_TYPES[array.dtype]), (8, name.encode()), (9, array.tobytes())]
    )


def _input(name: str, array: Array) -> bytes:
    shape = write_fields([(1, write_fields([(1, size)])) for size in array.shape])
    tensor = write_fields([(1, _ELEMENT_TYPES[array.dtype]), (2, shape)])
    return write_fields([(1, name.encode()), (2, write_fields([(1, tensor)]))])
