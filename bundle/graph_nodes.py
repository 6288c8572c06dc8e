"""Nodes of an ONNX model, read on the protobuf wire: no `onnx` is needed, and no weight is read.

Rules:
- Names of tensors are bytes, as they are in the file. An optional input that is left out has an
  empty name.
- Messages are read lazily: the time for a large model depends on its nodes, not on its weights.
- A message may come in several parts, which a parser merges; so does this module.
- Malformed bytes raise MalformedError, at any of these calls.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from weir.bundle.protobuf_wire import read_fields, read_varints

# Field numbers of onnx.proto.
_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_FUNCTION = 1, 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_GRAPH_VALUE, _GRAPH_SPARSE_INITIALIZER, _SPARSE_VALUES = 13, 15, 1
_FUNCTION_NAME, _FUNCTION_INPUT, _FUNCTION_OUTPUT = 1, 4, 5
_FUNCTION_NODE, _FUNCTION_DOMAIN = 7, 10
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_TYPE = 1, 2, 3, 4
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTEGERS = 1, 3, 5, 8
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_TENSOR_NAME, _VALUE_NAME, _VALUE_TYPE = 8, 1, 2
_TYPE_TENSOR, _TENSOR_TYPE, _TENSOR_SHAPE, _SHAPE_AXIS = 1, 1, 2, 1
_DIMS, _DATA_TYPE, _INT32_DATA, _INT64_DATA, _RAW_DATA, _EXTERNAL_DATA = 1, 2, 5, 7, 9, 13

# The integers that sizes and axes are made of, by element type in onnx.proto.
_INT32, _INT64 = 6, 7
INTEGERS: Mapping[int, np.dtype[np.signedinteger[Any]]] = {
    _INT32: np.dtype("<i4"),
    _INT64: np.dtype("<i8"),
}

Message = memoryview


class Declared(NamedTuple):
    """The type that a graph declares for a tensor, 0 for none, and its number of axes."""

    type: int
    rank: int | None


class Constant(NamedTuple):
    """A tensor that is stored in the file.

    Attributes:
        type: the element type in onnx.proto; 0 for none.
        raw: its bytes; None if its values are in fields of their own type.
        typed: the fields of its values, if they are INT32 or INT64.
    """

    type: int
    shape: Sequence[int]
    raw: Message | None
    typed: Sequence[int | Message]
    is_external: bool

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    def integers(self) -> list[int] | None:
        """Its values, if they are INT32 or INT64 and inside the file."""
        dtype = INTEGERS.get(self.type)
        if dtype is None or self.is_external:
            return None
        values: list[int] = []
        for each in self.typed:
            values += map(signed, [each] if isinstance(each, int) else read_varints(each))
        if self.raw is not None and len(self.raw) % dtype.itemsize == 0:
            values += np.frombuffer(self.raw, dtype).tolist()
        return values if len(values) == self.size else None


class Attribute(NamedTuple):
    """An attribute of a node."""

    name: str
    message: Message

    def integers(self) -> list[int]:
        """Its integer or integers; a negative one is in two's complement of 64 bits."""
        found = []
        for number, value in read_fields(self.message):
            if number not in (_ATTRIBUTE_INTEGER, _ATTRIBUTE_INTEGERS):
                continue
            found += [value] if isinstance(value, int) else packed_integers(value)
        return [signed(value) for value in found]

    def tensors(self) -> Iterator[Message]:
        """Its tensor, in one part or several."""
        return messages(self.message, _ATTRIBUTE_TENSOR)


class Node(NamedTuple):
    """A node: an operator with names of tensors; its own name may be empty."""

    domain: str
    type: str
    inputs: list[bytes]
    outputs: list[bytes]
    attribute_messages: list[Message]
    name: str = ""

    def attributes(self) -> Iterator[Attribute]:
        """Its attributes, in the order of the file."""
        for message in self.attribute_messages:
            (names,) = strings(message, _ATTRIBUTE_NAME)
            yield Attribute(last(names), message)

    def subgraphs(self) -> Iterator["Graph"]:
        """The graphs in its attributes: branches of an `If`, the body of a `Loop` or a `Scan`."""
        for attribute in self.attribute_messages:
            parts = []
            for number, value in read_fields(attribute):
                if isinstance(value, int):
                    continue
                if number == _ATTRIBUTE_GRAPH:
                    parts.append(value)
                elif number == _ATTRIBUTE_GRAPHS:
                    yield Graph([value])
            if parts:
                yield Graph(parts)


class Graph(NamedTuple):
    """A graph, in one part or several."""

    parts: Sequence[Message]

    def nodes(self) -> Iterator[Node]:
        """Its nodes, in the order of the file; those of subgraphs are not among them."""
        for part in self.parts:
            yield from _nodes(part, _GRAPH_NODE)

    def inputs(self) -> Iterator[bytes]:
        """The names of its inputs."""
        return names(self.parts, _GRAPH_INPUT, _VALUE_NAME)

    def input_messages(self) -> Iterator[Message]:
        """The message of each input: its name, type and shape."""
        for part in self.parts:
            yield from messages(part, _GRAPH_INPUT)

    def outputs(self) -> Iterator[bytes]:
        """The names of its outputs."""
        return names(self.parts, _GRAPH_OUTPUT, _VALUE_NAME)

    def declared(self) -> Iterator[tuple[bytes, Declared]]:
        """What it declares of its inputs, outputs and other tensors, by name."""
        return self._declared(_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE)

    def without_shape(self) -> Iterator[bytes]:
        """The names of its inputs and outputs that are declared without a shape."""
        for name, declared in self._declared(_GRAPH_INPUT, _GRAPH_OUTPUT):
            if declared.rank is None:
                yield name

    def _declared(self, *fields: int) -> Iterator[tuple[bytes, Declared]]:
        for part in self.parts:
            for field in fields:
                for value in messages(part, field):
                    names = [bytes(each) for each in messages(value, _VALUE_NAME)]
                    if names:
                        yield names[-1], _declared(value)

    def initializers(self) -> Iterator[bytes]:
        """The names of its initializers, sparse ones too."""
        yield from names(self.parts, _GRAPH_INITIALIZER, _TENSOR_NAME)
        sparse = [each for part in self.parts for each in messages(part, _GRAPH_SPARSE_INITIALIZER)]
        yield from names(sparse, _SPARSE_VALUES, _TENSOR_NAME)

    def initializer_messages(self) -> Iterator[tuple[bytes, Message]]:
        """The name and the message of each initializer that is not sparse."""
        for part in self.parts:
            for message in messages(part, _GRAPH_INITIALIZER):
                found = [bytes(value) for value in messages(message, _TENSOR_NAME)]
                yield found[-1] if found else b"", message


class Function(NamedTuple):
    """A local function of a model."""

    domain: str
    name: str
    inputs: list[bytes]
    outputs: list[bytes]
    message: Message

    def nodes(self) -> Iterator[Node]:
        """The nodes of its body; those of subgraphs are not among them."""
        return _nodes(self.message, _FUNCTION_NODE)


class Model(NamedTuple):
    """A model: its graph, and its local functions."""

    ir_version: int
    graph: Graph
    functions: list[Function]

    def every_node(self) -> Iterator[Node]:
        """The nodes of graph and functions, and those of their subgraphs at any depth."""
        waiting = [self.graph.nodes(), *(function.nodes() for function in self.functions)]
        while waiting:
            for node in waiting.pop():
                yield node
                waiting += [graph.nodes() for graph in node.subgraphs()]


def read(model: bytes) -> Model:
    """The model of an ONNX file's bytes."""
    ir_version, parts, functions = 0, [], []
    for number, value in read_fields(memoryview(model)):
        if isinstance(value, int):
            if number == _MODEL_IR_VERSION:
                ir_version = value
        elif number == _MODEL_GRAPH:
            parts.append(value)
        elif number == _MODEL_FUNCTION:
            functions.append(_function(value))
    return Model(ir_version, Graph(parts), functions)


def messages(message: Message, field: int) -> Iterator[Message]:
    """The values of a field that have a length: messages, strings."""
    for number, value in read_fields(message):
        if number == field and not isinstance(value, int):
            yield value


def names(parents: Iterable[Message], field: int, name: int) -> Iterator[bytes]:
    """The name of each message in a field of some messages; one without a name is left out."""
    for parent in parents:
        for child in messages(parent, field):
            found = [bytes(value) for value in messages(child, name)]
            if found:
                yield found[-1]


def strings(message: Message, *fields: int) -> list[list[bytes]]:
    """The values of each of some string fields."""
    found: dict[int, list[bytes]] = {field: [] for field in fields}
    for number, value in read_fields(message):
        if number in found and not isinstance(value, int):
            found[number].append(bytes(value))
    return list(found.values())


def last(values: Sequence[bytes]) -> str:
    """The value of a field that is not repeated: as in protobuf, the last one counts."""
    return text(values[-1]) if values else ""


def text(name: bytes) -> str:
    """A name as text; bytes that are no UTF-8 are escaped."""
    return name.decode(errors="backslashreplace")


def signed(value: int) -> int:
    """The integer of 64 bits in two's complement that a varint stands for."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def packed_integers(message: Message) -> list[int]:
    """The varints of a packed field."""
    return list(read_varints(message))


def constant(message: Message) -> Constant:
    """The tensor of a message; its values are not read yet."""
    kind, shape, is_external = 0, [], False
    raw: Message | None = None
    typed: list[int | Message] = []
    for number, value in read_fields(message):
        if number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _DIMS:
            shape += [value] if isinstance(value, int) else packed_integers(value)
        elif number in (_INT32_DATA, _INT64_DATA):
            typed.append(value)
        elif number == _RAW_DATA and not isinstance(value, int):
            raw = value
        elif number == _EXTERNAL_DATA:
            is_external = True
    return Constant(kind, shape, raw, typed, is_external)


def _declared(value: Message) -> Declared:
    """What the description of a tensor declares; the shape of a scalar is an empty message."""
    kind, rank = 0, None
    for each in messages(value, _VALUE_TYPE):
        for tensor in messages(each, _TYPE_TENSOR):
            for number, content in read_fields(tensor):
                if number == _TENSOR_TYPE and isinstance(content, int):
                    kind = content
                elif number == _TENSOR_SHAPE and not isinstance(content, int):
                    rank = (rank or 0) + sum(1 for _ in messages(content, _SHAPE_AXIS))
    return Declared(kind, rank)


def read_node(message: Message) -> Node:
    """The node of a message."""
    domains: list[bytes] = []
    types: list[bytes] = []
    found: list[bytes] = []
    inputs: list[bytes] = []
    outputs: list[bytes] = []
    attributes: list[Message] = []
    for number, value in read_fields(message):
        if isinstance(value, int):
            continue
        if number == _NODE_INPUT:
            inputs.append(bytes(value))
        elif number == _NODE_OUTPUT:
            outputs.append(bytes(value))
        elif number == _NODE_ATTRIBUTE:
            attributes.append(value)
        elif number == _NODE_NAME:
            found.append(bytes(value))
        elif number == _NODE_TYPE:
            types.append(bytes(value))
        elif number == _NODE_DOMAIN:
            domains.append(bytes(value))
    return Node(_domain(domains), last(types), inputs, outputs, attributes, last(found))


def _nodes(message: Message, field: int) -> Iterator[Node]:
    return map(read_node, messages(message, field))


def _function(message: Message) -> Function:
    domains, found, inputs, outputs = strings(
        message, _FUNCTION_DOMAIN, _FUNCTION_NAME, _FUNCTION_INPUT, _FUNCTION_OUTPUT
    )
    return Function(_domain(domains), last(found), inputs, outputs, message)


def _domain(values: Sequence[bytes]) -> str:
    """A domain's name; the default domain has two names."""
    domain = last(values)
    return "" if domain == "ai.onnx" else domain
