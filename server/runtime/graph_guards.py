"""Graph guards: nodes that stop a client's value from ending the process.

ONNX Runtime checks most inputs of its CPU kernels and reports bad ones. These it does not check
(1.31.1; found by `tests/exporters/test_extreme_values.py`):

    Div, Mod           the smallest INT32 or INT64, divided by -1: SIGFPE
                       (onnxruntime#27686, #32494)
    LSTM, GRU, DynamicQuantizeLSTM
                       an empty sequence: SIGABRT
    ConvTranspose      an empty volume (three spatial axes): SIGSEGV
    Unique             an empty tensor, with an axis: SIGABRT
    Attention          keys without heads: SIGFPE
    STFT               an empty window, or a frame of length 0: SIGFPE
    QuantizeLinear, DequantizeLinear
                       with blocks: scales without elements: SIGFPE
    of com.microsoft: Inverse, MultiHeadAttention, QAttention, RotaryEmbedding,
    SkipLayerNormalization, SkipSimplifiedLayerNormalization
                       an empty input, for Inverse also one that is not square: SIGFPE, SIGSEGV

A guard is written around each such node, unless it is proved that it needs none. The answers stay
the same, bit for bit. A guarded Div or Mod divides by 1 where the divisor is -1, and a Div then
gives the negative dividend; the smallest integer stays as it is, as in kernels that wrap. The guard
of an input that must not be empty divides its size by itself, which ONNX Runtime refuses for 0.

Rules:
- The file's nodes are rewritten on the wire; no weight is read.
- Only what is proved counts (`graph_analysis`): a divisor is without -1 if it is made of constants
  and of sizes.
- A guard has no constants, so it fits any type. A node of floats is left alone where its type is
  known, for speed.
- A node whose operator set is too old for a guard is refused.

Some kernels trust the number of axes, too (SIGABRT). ONNX Runtime itself refuses other axes than
the graph declares, so this matters for inputs without a shape only: `TRUST_AXES`, and an empty
tensor with other axes in `CONCATENATIONS`.
"""

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from weir.bundle import graph_nodes
from weir.bundle.graph_nodes import Message, Model, Node
from weir.bundle.protobuf_wire import Field, read_fields, write_fields
from weir.server.errors import ModelLoadError
from weir.server.runtime import graph_analysis
from weir.server.runtime.graph_analysis import (
    MICROSOFT,
    UNKNOWN,
    UNKNOWN_TYPE,
    TensorFacts,
)

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 7, 8, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE = 1
_FUNCTION_NODE, _FUNCTION_OPSET = 7, 9
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11

_DIVISIONS = frozenset(("Div", "Mod"))
RECURRENT = frozenset(("DynamicQuantizeLSTM", "GRU", "LSTM"))
TRUST_AXES = frozenset(
    ("AffineGrid", "Attention", "CropAndResize", "Einsum", "ReverseSequence", "RoiAlign", "STFT")
)
"""Operators that end the process if an input has another number of axes than they take."""

CONCATENATIONS = frozenset(("Concat", "ConcatFromSequence", "QLinearConcat"))
"""Operators that end the process if an empty input has another number of axes than another."""

# The positions of the inputs that must not be empty.
_NOT_EMPTY: Mapping[str, tuple[int, ...]] = {
    "Attention": (1,),
    "ConvTranspose": (0,),
    "DequantizeLinear": (1,),
    "GRU": (0,),
    "LSTM": (0,),
    "QuantizeLinear": (1,),
    "STFT": (2,),
    "Unique": (0,),
}
_MICROSOFT_NOT_EMPTY: Mapping[str, tuple[int, ...]] = {
    "DynamicQuantizeLSTM": (0,),
    "Inverse": (0,),
    "MultiHeadAttention": (0, 2),
    "QAttention": (0,),
    "RotaryEmbedding": (0,),
    # The second input alone ends the process; without the first, nothing is proved of the output.
    "SkipLayerNormalization": (0, 1),
    "SkipSimplifiedLayerNormalization": (0, 1),
}
_FRAME_LENGTH = 3
# It reads as many values as its scales have (SIGSEGV), which are constants in every honest graph.
_QUANTIZED_PRODUCT, _SCALES = "DynamicQuantizeMatMul", 2
GUARDED = frozenset((*_DIVISIONS, *_NOT_EMPTY, *_MICROSOFT_NOT_EMPTY, _QUANTIZED_PRODUCT))
# The operators of a guard: of a division, Sign and Where; of an empty input, Div of integers.
_OPSET_OF_DIVISION, _OPSET_OF_EMPTY = 9, 7


@dataclass(frozen=True, slots=True)
class GuardedGraph:
    """A graph with its guards.

    Attributes:
        graph: the ONNX file's bytes.
        operators: of the graph, its subgraphs and functions.
    """

    graph: bytes
    operators: frozenset[str]

    @property
    def is_recurrent(self) -> bool:
        """Whether no input may be empty."""
        return bool(self.operators & RECURRENT)


def guard(graph: bytes) -> GuardedGraph:
    """The graph with a guard around each node that a value may make end the process.

    Raises:
        ModelLoadError: a guard cannot be written.
        MalformedError: the bytes are no message.
    """
    model = graph_nodes.read(graph)
    guarded = GuardedGraph(graph, frozenset(node.type for node in model.every_node()))
    if not guarded.operators & GUARDED:
        return guarded
    writer = _Writer(model, is_recurrent=guarded.is_recurrent)
    fields = list(writer.model(memoryview(graph)))
    return replace(guarded, graph=write_fields(fields)) if writer.guards else guarded


class _Writer:
    """Writes a model with guards; `guards` counts them."""

    def __init__(self, model: Model, *, is_recurrent: bool) -> None:
        self.guards = 0
        self._model = model
        self._is_recurrent = is_recurrent
        self._opset = 0

    def model(self, message: Message) -> Iterator[Field]:
        opset = _opset(message, _MODEL_OPSET)
        for number, value in read_fields(message):
            if number == _MODEL_GRAPH and not isinstance(value, int):
                self._opset = opset
                # The parts of a graph see each other's tensors.
                parts, has_elements = self._model.graph.parts, self._is_recurrent
                tensors = ChainMap(
                    graph_analysis.declared(parts, inputs_have_elements=has_elements)
                )
                yield number, self._nodes(value, _GRAPH_NODE, tensors)
            elif number == _MODEL_FUNCTION and not isinstance(value, int):
                self._opset = _opset(value, _FUNCTION_OPSET) or opset
                yield number, self._nodes(value, _FUNCTION_NODE, ChainMap({}))
            else:
                yield number, value

    def _nodes(
        self, part: Message, field: int, tensors: ChainMap[bytes, TensorFacts]
    ) -> Message | bytes:
        """A graph or function with guards; the same message if it needs none."""
        before = self.guards
        fields: list[Field] = []
        for number, value in read_fields(part):
            if number == field and not isinstance(value, int):
                node = graph_nodes.read_node(value)
                fields += ((field, each) for each in self._node(value, node, tensors))
            else:
                fields.append((number, value))
        return part if self.guards == before else write_fields(fields)

    def _node(
        self, message: Message, node: Node, tensors: ChainMap[bytes, TensorFacts]
    ) -> list[Message | bytes]:
        """The node, with the nodes of its guard."""
        message, bodies = self._with_subgraphs(message, node, tensors)
        _check_scales(node, tensors)
        nodes: list[Message | bytes] = []
        filled: dict[bytes, TensorFacts] = {}
        for place in _places(node):
            if not _needs_elements(node, place, tensors):
                continue
            if self._opset < _OPSET_OF_EMPTY:
                raise ModelLoadError(
                    f"operator {node.type}: an empty input would end the server, and a guard "
                    f"needs opset {_OPSET_OF_EMPTY}, got {self._opset}"
                )
            name = self._new_name(b"filled")
            nodes += self._filled(node.inputs[place], name)
            message = _renamed(message, _NODE_INPUT, place, name)
            known = tensors.get(node.inputs[place], UNKNOWN)
            filled[node.inputs[place]] = known._replace(has_elements=True)
        outputs = graph_analysis.outputs(node, tensors.new_child(filled), bodies)
        for name, made in zip(node.outputs, outputs, strict=False):
            # What the file declares is right: ONNX Runtime refuses the file otherwise.
            declared = tensors.get(name, UNKNOWN)
            tensors[name] = made._replace(type=made.type or declared.type, axes=declared.axes)
        if node.domain == MICROSOFT and node.type == "Inverse" and node.inputs:
            matrix = name if nodes else node.inputs[0]
            square = self._new_name(b"square")
            nodes += self._square(matrix, square)
            message = _renamed(message, _NODE_INPUT, 0, square)
        if node.domain:
            return [*nodes, message]
        if node.type in _DIVISIONS:
            return self._division(message, node, tensors)
        if node.type == "STFT" and len(node.inputs) > _FRAME_LENGTH and node.inputs[_FRAME_LENGTH]:
            length, name = node.inputs[_FRAME_LENGTH], self._new_name(b"length")
            one = self._new_name(b"one")
            nodes += [_node("Div", [length, length], one), _node("Mul", [length, one], name)]
            message = _renamed(message, _NODE_INPUT, _FRAME_LENGTH, name)
        return [*nodes, message]

    def _with_subgraphs(
        self, message: Message, node: Node, tensors: ChainMap[bytes, TensorFacts]
    ) -> tuple[Message, list[list[TensorFacts]]]:
        """The node with guards in its subgraphs, and what is proved of each one's outputs."""
        if not any(True for _ in node.subgraphs()):
            return message, []
        before, bodies = self.guards, []
        fields: list[Field] = []
        for number, value in read_fields(message):
            if number != _NODE_ATTRIBUTE or isinstance(value, int):
                fields.append((number, value))
                continue
            attribute: list[Field] = []
            for inner, content in read_fields(value):
                if inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS) and not isinstance(content, int):
                    declared = graph_analysis.declared([content], inputs_have_elements=False)
                    inside = tensors.new_child(declared)
                    attribute.append((inner, self._nodes(content, _GRAPH_NODE, inside)))
                    outputs = graph_nodes.Graph([content]).outputs()
                    bodies.append([inside.get(name, UNKNOWN) for name in outputs])
                else:
                    attribute.append((inner, content))
            fields.append((number, write_fields(attribute)))
        return (message if self.guards == before else memoryview(write_fields(fields))), bodies

    def _division(
        self, message: Message, node: Node, tensors: Mapping[bytes, TensorFacts]
    ) -> list[Message | bytes]:
        if len(node.inputs) != 2 or not node.outputs or not _may_overflow(node, tensors):
            return [message]
        if self._opset < _OPSET_OF_DIVISION:
            raise ModelLoadError(
                f"operator {node.type}: the smallest integer, divided by -1, would end the server, "
                f"and a guard needs opset {_OPSET_OF_DIVISION}, got {self._opset}"
            )
        dividend, divisor = node.inputs
        sign, size, is_unit, is_negative, is_minus_one, safe = (
            self._new_name(each) for each in (b"sign", b"size", b"unit", b"minus", b"is", b"safe")
        )
        nodes: list[Message | bytes] = [
            _node("Sign", [divisor], sign),
            _node("Equal", [divisor, sign], is_unit),
            _node("Abs", [divisor], size),
            # The size of the smallest integer is itself.
            _node("Less", [divisor, size], is_negative),
            _node("And", [is_unit, is_negative], is_minus_one),
            _node("Where", [is_minus_one, size, divisor], safe),
        ]
        message = _renamed(message, _NODE_INPUT, 1, safe)
        if node.type == "Mod":
            return [*nodes, message]
        quotient, negative = self._new_name(b"quotient"), self._new_name(b"negative")
        return [
            *nodes,
            _renamed(message, _NODE_OUTPUT, 0, quotient),
            _node("Neg", [dividend], negative),
            _node("Where", [is_minus_one, negative, quotient], node.outputs[0]),
        ]

    def _filled(self, tensor: bytes, name: bytes) -> list[bytes]:
        """Nodes that give a tensor another name, and fail if it is empty."""
        size, one, shape, same = (
            self._new_name(each) for each in (b"size", b"one", b"shape", b"same")
        )
        return [
            _node("Size", [tensor], size),
            _node("Div", [size, size], one),
            _node("Shape", [tensor], shape),
            _node("Mul", [shape, one], same),
            _node("Reshape", [tensor, same], name),
        ]

    def _square(self, matrix: bytes, name: bytes) -> list[bytes]:
        """Nodes that give a matrix another name, and fail if it is not square."""
        product, shape = self._new_name(b"product"), self._new_name(b"shape")
        return [
            _node("MatMul", [matrix, matrix], product),
            _node("Shape", [product], shape),
            _node("Reshape", [matrix, shape], name),
        ]

    def _new_name(self, what: bytes) -> bytes:
        self.guards += 1
        return b"weir/guard/%d/%s" % (self.guards, what)


def _may_overflow(node: Node, tensors: Mapping[bytes, TensorFacts]) -> bool:
    """Whether an integer division may be that of the smallest integer by -1."""
    dividend, divisor = (tensors.get(name, UNKNOWN) for name in node.inputs)
    output = tensors.get(node.outputs[0], UNKNOWN)
    if any(
        each.type not in (UNKNOWN_TYPE, *graph_nodes.INTEGERS)
        for each in (dividend, divisor, output)
    ):
        return False
    if dividend.is_natural or divisor.is_natural or divisor.has_no_minus_one:
        return False
    # The remainder of `fmod` is computed with FP64.
    fmod = (each for each in node.attributes() if each.name == "fmod")
    return not any(1 in each.integers() for each in fmod)


def _check_scales(node: Node, tensors: Mapping[bytes, TensorFacts]) -> None:
    if node.domain != MICROSOFT or node.type != _QUANTIZED_PRODUCT:
        return
    scales = node.inputs[_SCALES] if len(node.inputs) > _SCALES else b""
    if not tensors.get(scales, UNKNOWN).is_constant:
        raise ModelLoadError(
            f"operator {node.type}: expected constant scales; others may end the server"
        )


def _places(node: Node) -> tuple[int, ...]:
    """The positions of a node's inputs that must not be empty."""
    places = {"": _NOT_EMPTY, MICROSOFT: _MICROSOFT_NOT_EMPTY}.get(node.domain, {})
    return places.get(node.type, ())


def _needs_elements(node: Node, place: int, tensors: Mapping[bytes, TensorFacts]) -> bool:
    """Whether an input must not be empty, and may be."""
    if place >= len(node.inputs) or not node.inputs[place]:
        return False
    if tensors.get(node.inputs[place], UNKNOWN).has_elements:
        return False
    if node.type == "ConvTranspose":
        axes = {tensors.get(name, UNKNOWN).axes for name in node.inputs[:2]}
        return axes <= {None, 5}
    if node.type == "Unique":
        return any(each.name == "axis" for each in node.attributes())
    if node.type in ("DequantizeLinear", "QuantizeLinear"):
        blocks = [each.integers() for each in node.attributes() if each.name == "block_size"]
        return any(any(each) for each in blocks)
    return True


def _opset(message: Message, field: int) -> int:
    """The version of ONNX's own operators that a model or a function is written in."""
    found = 0
    for entry in graph_nodes.messages(message, field):
        (domains,) = graph_nodes.strings(entry, _OPSET_DOMAIN)
        if graph_nodes.last(domains) in ("", "ai.onnx"):
            for number, value in read_fields(entry):
                if number == _OPSET_VERSION and isinstance(value, int):
                    found = value
    return found


def _renamed(message: Message, field: int, place: int, name: bytes) -> Message:
    """The node with another name for one of its inputs or outputs."""
    fields: list[Field] = []
    position = 0
    for number, value in read_fields(message):
        is_name = number == field and not isinstance(value, int)
        fields.append((number, name if is_name and position == place else value))
        position += is_name
    return memoryview(write_fields(fields))


def _node(kind: str, inputs: Iterable[bytes], output: bytes) -> bytes:
    names: list[Field] = [(_NODE_INPUT, name) for name in inputs]
    return write_fields([*names, (_NODE_OUTPUT, output), (_NODE_TYPE, kind.encode())])
