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
- Only what is proved counts: a divisor is without -1 if it is made of constants and of sizes.
  Sums and products of sizes are no proof: they overflow for an empty tensor of the right shape.
- A guard has no constants, so it fits any type. A node of floats is left alone where its type is
  known, for speed.
- A node whose operator set is too old for a guard is refused.

Some kernels trust the number of axes, too (SIGABRT). ONNX Runtime itself refuses other axes than
the graph declares, so this matters for inputs without a shape only: `TRUST_AXES`, and an empty
tensor with other axes in `CONCATENATIONS`.
"""

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from weir.bundle import graph_nodes
from weir.bundle.graph_nodes import Message, Model, Node
from weir.bundle.protobuf_wire import Field, read_fields, read_varints, write_fields
from weir.server.errors import ModelLoadError

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 7, 8, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE = 1, 11, 12, 13
_FUNCTION_NODE, _FUNCTION_OPSET = 7, 9
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_TYPE, _TENSOR_SHAPE, _SHAPE_AXIS = 1, 2, 1, 1, 2, 1
_DIMS, _DATA_TYPE, _INT32_DATA, _INT64_DATA, _RAW_DATA, _EXTERNAL = 1, 2, 5, 7, 9, 13

_UNKNOWN_TYPE, _INT32, _INT64 = 0, 6, 7
_DTYPES: Mapping[int, np.dtype[np.signedinteger[Any]]] = {
    _INT32: np.dtype("<i4"),
    _INT64: np.dtype("<i8"),
}
_FLOAT = 1
# A larger constant is not looked through: a divisor of so many values is no constant of a shape.
_MOST_CONSTANT_BYTES = 1 << 16

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
_MICROSOFT = "com.microsoft"
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


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SAME_TYPE = _words("""
    Abs Add BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Clip Col2Im Compress
    Concat CumProd CumSum DepthToSpace Div Einsum Erf Expand Flatten Gather GatherElements GatherND
    Gemm GridSample Identity MatMul Max Min Mod Mul Neg PRelu Pad Pow Range ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize ReverseSequence Scatter ScatterElements ScatterND Shrink Sign Slice
    SpaceToDepth Split Squeeze Sub TensorScatter Tile TopK Transpose Trilu Unique Unsqueeze Upsample
    """)
"""Operators whose first output has the type of their first input."""

NEVER_INTEGER = _words("""
    Acos Acosh AffineGrid And Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    CausalConvWithState Ceil Celu Conv ConvTranspose Cos Cosh DFT DeformConv DequantizeLinear Det
    Dropout DynamicQuantizeLinear Elu Equal Exp Floor GRU Gelu GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax
    InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual
    LinearAttention Log LogSoftmax LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization Mish NegativeLogLikelihoodLoss Not Or QLinearConv QLinearMatMul
    QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Reciprocal RegexFullMatch RoiAlign RotaryEmbedding Round STFT Selu Sigmoid Sin
    Sinh Softmax SoftmaxCrossEntropyLoss Softplus Softsign Sqrt StringConcat StringNormalizer
    StringSplit Sum SwiGLU Swish Tan Tanh TfIdfVectorizer ThresholdedRelu Xor
    """)
"""Operators whose first output is neither INT32 nor INT64."""

ML_FLOATS = _words("""
    FeatureVectorizer LinearRegressor Normalizer SVMRegressor Scaler TreeEnsemble
    TreeEnsembleRegressor
    """)
"""Operators of ai.onnx.ml whose output is of floats."""

ML_LABELS = _words("LinearClassifier SVMClassifier TreeEnsembleClassifier")
"""Operators of ai.onnx.ml whose second output is of floats."""

# Operators whose first output has the type of the input at this position.
_TYPE_OF_INPUT = {"CastLike": 1, "OneHot": 2, "Where": 1}

NATURAL = _words("ArgMax ArgMin NonMaxSuppression NonZero Shape Size")
"""Operators of INT64, which is 0 or more."""

# The output is chosen from the values of the inputs at these positions; of any input if none.
_CHOOSES: Mapping[str, tuple[int, ...]] = {
    "Concat": (),
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Identity": (0,),
    "Max": (),
    "Min": (),
    "ReduceMax": (0,),
    "ReduceMin": (0,),
    "Reshape": (0,),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}
# Their outputs are natural if all inputs are.
_KEEPS_NATURAL = frozenset(("Div", "Mod"))
# If no input is empty, the first output is not.
_KEEPS_ELEMENTS = _words("""
    Add Concat Div Gather Gemm MatMul MatMulInteger Max Mean Min Mul PRelu Pow Sub Sum Where
    """)
# If the first input is not empty, the first output is not.
_KEEPS_FIRST = _words("""
    BatchNormalization Cast Clip DequantizeLinear Dropout DynamicQuantizeLinear Elu Erf Exp Flatten
    GRU Gelu GlobalAveragePool HardSigmoid HardSwish Identity InstanceNormalization LSTM
    LayerNormalization LeakyRelu Log Neg QuantizeLinear RNN Reciprocal ReduceMax ReduceMean
    ReduceMin ReduceSum Relu Reshape ReverseSequence Selu Sigmoid Sign Softmax Softplus Sqrt Squeeze
    Tanh Transpose Unsqueeze
    """)
_MICROSOFT_KEEPS_ELEMENTS = _words("""
    DynamicQuantizeMatMul FusedMatMul MatMulIntegerToFloat MatMulNBits
    """)
_MICROSOFT_KEEPS_FIRST = _words("""
    Attention BiasGelu DynamicQuantizeLSTM FastGelu Gelu MultiHeadAttention QAttention QuickGelu
    RotaryEmbedding SkipLayerNormalization SkipSimplifiedLayerNormalization
    """)


class _Tensor(NamedTuple):
    """What is proved of a tensor.

    Attributes:
        type: its element type in onnx.proto.
        is_natural: whether its integers are 0 or more.
        has_no_minus_one: whether its integers are none of them -1.
        has_elements: whether it is not empty, if no input of the graph is.
        axes: how many, if the graph declares them.
        is_constant: whether no request can change it.
    """

    type: int = _UNKNOWN_TYPE
    is_natural: bool = False
    has_no_minus_one: bool = False
    has_elements: bool = False
    axes: int | None = None
    is_constant: bool = False


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


_UNKNOWN = _Tensor()


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
                tensors = ChainMap(_declared(parts, inputs_have_elements=has_elements))
                yield number, self._nodes(value, _GRAPH_NODE, tensors)
            elif number == _MODEL_FUNCTION and not isinstance(value, int):
                self._opset = _opset(value, _FUNCTION_OPSET) or opset
                yield number, self._nodes(value, _FUNCTION_NODE, ChainMap({}))
            else:
                yield number, value

    def _nodes(
        self, part: Message, field: int, tensors: ChainMap[bytes, _Tensor]
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
        self, message: Message, node: Node, tensors: ChainMap[bytes, _Tensor]
    ) -> list[Message | bytes]:
        """The node, with the nodes of its guard."""
        message, bodies = self._with_subgraphs(message, node, tensors)
        _check_scales(node, tensors)
        nodes: list[Message | bytes] = []
        filled: dict[bytes, _Tensor] = {}
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
            known = tensors.get(node.inputs[place], _UNKNOWN)
            filled[node.inputs[place]] = known._replace(has_elements=True)
        outputs = _outputs(node, tensors.new_child(filled), bodies)
        for name, made in zip(node.outputs, outputs, strict=False):
            # What the file declares is right: ONNX Runtime refuses the file otherwise.
            declared = tensors.get(name, _UNKNOWN)
            tensors[name] = made._replace(type=made.type or declared.type, axes=declared.axes)
        if node.domain == _MICROSOFT and node.type == "Inverse" and node.inputs:
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
        self, message: Message, node: Node, tensors: ChainMap[bytes, _Tensor]
    ) -> tuple[Message, list[list[_Tensor]]]:
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
                    declared = _declared([content], inputs_have_elements=False)
                    inside = tensors.new_child(declared)
                    attribute.append((inner, self._nodes(content, _GRAPH_NODE, inside)))
                    outputs = graph_nodes.Graph([content]).outputs()
                    bodies.append([inside.get(name, _UNKNOWN) for name in outputs])
                else:
                    attribute.append((inner, content))
            fields.append((number, write_fields(attribute)))
        return (message if self.guards == before else memoryview(write_fields(fields))), bodies

    def _division(
        self, message: Message, node: Node, tensors: Mapping[bytes, _Tensor]
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


def _declared(parts: Sequence[Message], *, inputs_have_elements: bool) -> dict[bytes, _Tensor]:
    """What inputs, initializers and declared types of a graph prove."""
    graph = graph_nodes.Graph(parts)
    tensors = dict(_values(parts))
    inputs = set(graph.inputs())
    for name in inputs:
        tensors[name] = tensors.get(name, _UNKNOWN)._replace(has_elements=inputs_have_elements)
    for name, message in graph.initializer_messages():
        constant = _constant(message)
        # A request may send other values for an initializer that is an input too.
        tensors[name] = _Tensor(constant.type, axes=constant.axes) if name in inputs else constant
    return tensors


def _may_overflow(node: Node, tensors: Mapping[bytes, _Tensor]) -> bool:
    """Whether an integer division may be that of the smallest integer by -1."""
    dividend, divisor = (tensors.get(name, _UNKNOWN) for name in node.inputs)
    output = tensors.get(node.outputs[0], _UNKNOWN)
    if any(each.type not in (_UNKNOWN_TYPE, *_DTYPES) for each in (dividend, divisor, output)):
        return False
    if dividend.is_natural or divisor.is_natural or divisor.has_no_minus_one:
        return False
    # The remainder of `fmod` is computed with FP64.
    fmod = (each for each in node.attributes() if each.name == "fmod")
    return not any(1 in each.integers() for each in fmod)


def _check_scales(node: Node, tensors: Mapping[bytes, _Tensor]) -> None:
    if node.domain != _MICROSOFT or node.type != _QUANTIZED_PRODUCT:
        return
    scales = node.inputs[_SCALES] if len(node.inputs) > _SCALES else b""
    if not tensors.get(scales, _UNKNOWN).is_constant:
        raise ModelLoadError(
            f"operator {node.type}: expected constant scales; others may end the server"
        )


def _places(node: Node) -> tuple[int, ...]:
    """The positions of a node's inputs that must not be empty."""
    places = {"": _NOT_EMPTY, _MICROSOFT: _MICROSOFT_NOT_EMPTY}.get(node.domain, {})
    return places.get(node.type, ())


def _needs_elements(node: Node, place: int, tensors: Mapping[bytes, _Tensor]) -> bool:
    """Whether an input must not be empty, and may be."""
    if place >= len(node.inputs) or not node.inputs[place]:
        return False
    if tensors.get(node.inputs[place], _UNKNOWN).has_elements:
        return False
    if node.type == "ConvTranspose":
        axes = {tensors.get(name, _UNKNOWN).axes for name in node.inputs[:2]}
        return axes <= {None, 5}
    if node.type == "Unique":
        return any(each.name == "axis" for each in node.attributes())
    if node.type in ("DequantizeLinear", "QuantizeLinear"):
        blocks = [each.integers() for each in node.attributes() if each.name == "block_size"]
        return any(any(each) for each in blocks)
    return True


def _outputs(
    node: Node, tensors: Mapping[bytes, _Tensor], bodies: Sequence[Sequence[_Tensor]]
) -> Sequence[_Tensor]:
    """What is proved of a node's outputs; of those that are not among them, nothing."""
    if bodies and not node.domain:
        # A body of `Loop` gives its condition first. Values of one pass prove nothing of the next.
        outputs = bodies[0][1:] if node.type == "Loop" else bodies[0]
        return [_Tensor(each.type) for each in outputs]
    if node.domain == "ai.onnx.ml" and node.type in ML_FLOATS | ML_LABELS:
        kind = _UNKNOWN_TYPE if node.type in ML_LABELS else _FLOAT
        return [_Tensor(kind), _Tensor(_FLOAT)]
    named = [tensors.get(name, _UNKNOWN) for name in node.inputs if name]
    if node.domain == _MICROSOFT and node.type in _MICROSOFT_KEEPS_FIRST:
        return [_Tensor(has_elements=all(each.has_elements for each in named[:1]))]
    if node.domain == _MICROSOFT and node.type in _MICROSOFT_KEEPS_ELEMENTS:
        return [_Tensor(has_elements=all(each.has_elements for each in named))]
    if node.domain:
        return []
    first = _first_output(node, named)
    if node.type == "Split":
        other = first
    elif node.type in ("MaxPool", "TopK", "Unique"):
        other = _Tensor(_INT64)
    elif node.type in NEVER_INTEGER and node.type != "StringSplit":
        other = _Tensor(_FLOAT)
    else:
        other = _UNKNOWN
    return [first, *[other] * (len(node.outputs) - 1)]


def _first_output(node: Node, inputs: Sequence[_Tensor]) -> _Tensor:
    if node.type == "Constant":
        return _constant_of(node)
    with_elements = inputs[:1] if node.type in _KEEPS_FIRST else inputs
    has_elements = node.type in _KEEPS_FIRST | _KEEPS_ELEMENTS and all(
        each.has_elements for each in with_elements
    )
    if node.type in NATURAL:
        return _Tensor(_INT64, is_natural=True, has_no_minus_one=True, has_elements=has_elements)
    places = _CHOOSES.get(node.type)
    sources = [inputs[place] for place in places if place < len(inputs)] if places else inputs
    is_chosen = places is not None and bool(sources)
    is_natural = (
        (is_chosen or node.type in _KEEPS_NATURAL) and all(each.is_natural for each in sources)
    ) or (node.type == "Max" and any(each.is_natural for each in sources))
    return _Tensor(
        _type_of(node, inputs),
        is_natural,
        is_natural or (is_chosen and all(each.has_no_minus_one for each in sources)),
        has_elements,
    )


def _type_of(node: Node, inputs: Sequence[_Tensor]) -> int:
    """The type of a node's first output."""
    if node.type in NEVER_INTEGER:
        return _FLOAT
    if node.type == "Cast":
        to = [each.integers() for each in node.attributes() if each.name == "to"]
        return to[-1][-1] if to and to[-1] else _UNKNOWN_TYPE
    if node.type == "ConstantOfShape":
        return _constant_of(node).type or _FLOAT
    place = 0 if node.type in SAME_TYPE else _TYPE_OF_INPUT.get(node.type)
    return inputs[place].type if place is not None and place < len(inputs) else _UNKNOWN_TYPE


def _constant_of(node: Node) -> _Tensor:
    """What is proved of the tensor in a node's attributes."""
    for attribute in node.attributes():
        for tensor in attribute.tensors():
            return _constant(tensor)
        if attribute.name in ("value_int", "value_ints"):
            return _of_integers(_INT64, attribute.integers())
        if attribute.name in ("value_float", "value_floats"):
            return _Tensor(_FLOAT, has_elements=True)
    return _UNKNOWN


def _constant(message: Message) -> _Tensor:
    """What is proved of a constant."""
    kind, axes, size = _UNKNOWN_TYPE, 0, 1
    values: list[int] = []
    raw: Message | None = None
    is_external = False
    for number, value in read_fields(message):
        if number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _DIMS:
            for each in [value] if isinstance(value, int) else read_varints(value):
                axes, size = axes + 1, size * each
        elif number in (_INT32_DATA, _INT64_DATA):
            found = [value] if isinstance(value, int) else read_varints(value)
            values += map(graph_nodes.signed, found)
        elif number == _RAW_DATA and not isinstance(value, int):
            raw = value
        elif number == _EXTERNAL:
            is_external = True
    tensor = _Tensor(kind, has_elements=size > 0, axes=axes, is_constant=True)
    dtype = _DTYPES.get(kind)
    if dtype is None or is_external or (raw is not None and len(raw) > _MOST_CONSTANT_BYTES):
        return tensor
    if raw is not None and len(raw) % dtype.itemsize == 0:
        values += np.frombuffer(raw, dtype).tolist()
    proved = _of_integers(kind, values if len(values) == size else [-1])
    return proved._replace(has_elements=size > 0, axes=axes, is_constant=True)


def _of_integers(kind: int, values: Sequence[int]) -> _Tensor:
    is_natural = all(value >= 0 for value in values)
    return _Tensor(kind, is_natural, is_natural or -1 not in values, has_elements=bool(values))


def _values(parts: Iterable[Message]) -> Iterator[tuple[bytes, _Tensor]]:
    """The tensors whose types and shapes a graph declares, by name."""
    for part in parts:
        for field in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE):
            for value in graph_nodes.messages(part, field):
                names = [bytes(each) for each in graph_nodes.messages(value, _VALUE_NAME)]
                tensor = _UNKNOWN
                for kind in graph_nodes.messages(value, _VALUE_TYPE):
                    for declared in graph_nodes.messages(kind, _TYPE_TENSOR):
                        for number, content in read_fields(declared):
                            if number == _TENSOR_TYPE and isinstance(content, int):
                                tensor = tensor._replace(type=content)
                            elif number == _TENSOR_SHAPE and not isinstance(content, int):
                                axes = sum(1 for _ in graph_nodes.messages(content, _SHAPE_AXIS))
                                tensor = tensor._replace(axes=axes)
                if names:
                    yield names[-1], tensor


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
