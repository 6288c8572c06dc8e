"""Static analysis of a graph: what is proved of its tensors' types, values and sizes.

Rules:
- Only what is proved counts. Sums and products of sizes prove nothing of their sign: they overflow
  for an empty tensor of the right shape.
- No weight is read; of constants, small ones are.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from weir.bundle import graph_nodes
from weir.bundle.graph_nodes import Message, Node

UNKNOWN_TYPE, _INT64 = 0, 7
_FLOAT = 1
# A larger constant is not looked through: a divisor of so many values is no constant of a shape.
_MAX_CONSTANT_BYTES = 1 << 16
MICROSOFT = "com.microsoft"


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


class TensorFacts(NamedTuple):
    """What is proved of a tensor.

    Attributes:
        type: its element type in onnx.proto.
        is_natural: whether its integers are 0 or more.
        has_no_minus_one: whether its integers are none of them -1.
        has_elements: whether it is not empty, if no input of the graph is.
        axes: how many, if the graph declares them.
        is_constant: whether no request can change it.
    """

    type: int = UNKNOWN_TYPE
    is_natural: bool = False
    has_no_minus_one: bool = False
    has_elements: bool = False
    axes: int | None = None
    is_constant: bool = False


UNKNOWN = TensorFacts()


def declared(parts: Sequence[Message], *, inputs_have_elements: bool) -> dict[bytes, TensorFacts]:
    """What inputs, initializers and declared types of a graph prove."""
    graph = graph_nodes.Graph(parts)
    tensors = {name: TensorFacts(each.type, axes=each.rank) for name, each in graph.declared()}
    inputs = set(graph.inputs())
    for name in inputs:
        tensors[name] = tensors.get(name, UNKNOWN)._replace(has_elements=inputs_have_elements)
    for name, message in graph.initializer_messages():
        constant = _constant(message)
        # A request may send other values for an initializer that is an input too.
        tensors[name] = (
            TensorFacts(constant.type, axes=constant.axes) if name in inputs else constant
        )
    return tensors


def outputs(
    node: Node, tensors: Mapping[bytes, TensorFacts], bodies: Sequence[Sequence[TensorFacts]]
) -> Sequence[TensorFacts]:
    """What is proved of a node's outputs; of those that are not among them, nothing."""
    if bodies and not node.domain:
        # A body of `Loop` gives its condition first. Values of one pass prove nothing of the next.
        outputs = bodies[0][1:] if node.type == "Loop" else bodies[0]
        return [TensorFacts(each.type) for each in outputs]
    if node.domain == "ai.onnx.ml" and node.type in ML_FLOATS | ML_LABELS:
        kind = UNKNOWN_TYPE if node.type in ML_LABELS else _FLOAT
        return [TensorFacts(kind), TensorFacts(_FLOAT)]
    named = [tensors.get(name, UNKNOWN) for name in node.inputs if name]
    if node.domain == MICROSOFT and node.type in _MICROSOFT_KEEPS_FIRST:
        return [TensorFacts(has_elements=all(each.has_elements for each in named[:1]))]
    if node.domain == MICROSOFT and node.type in _MICROSOFT_KEEPS_ELEMENTS:
        return [TensorFacts(has_elements=all(each.has_elements for each in named))]
    if node.domain:
        return []
    first = _first_output(node, named)
    if node.type == "Split":
        other = first
    elif node.type in ("MaxPool", "TopK", "Unique"):
        other = TensorFacts(_INT64)
    elif node.type in NEVER_INTEGER and node.type != "StringSplit":
        other = TensorFacts(_FLOAT)
    else:
        other = UNKNOWN
    return [first, *[other] * (len(node.outputs) - 1)]


def _first_output(node: Node, inputs: Sequence[TensorFacts]) -> TensorFacts:
    if node.type == "Constant":
        return _constant_of(node)
    with_elements = inputs[:1] if node.type in _KEEPS_FIRST else inputs
    has_elements = node.type in _KEEPS_FIRST | _KEEPS_ELEMENTS and all(
        each.has_elements for each in with_elements
    )
    if node.type in NATURAL:
        return TensorFacts(
            _INT64, is_natural=True, has_no_minus_one=True, has_elements=has_elements
        )
    places = _CHOOSES.get(node.type)
    sources = [inputs[place] for place in places if place < len(inputs)] if places else inputs
    is_chosen = places is not None and bool(sources)
    is_natural = (
        (is_chosen or node.type in _KEEPS_NATURAL) and all(each.is_natural for each in sources)
    ) or (node.type == "Max" and any(each.is_natural for each in sources))
    return TensorFacts(
        _type_of(node, inputs),
        is_natural,
        is_natural or (is_chosen and all(each.has_no_minus_one for each in sources)),
        has_elements,
    )


def _type_of(node: Node, inputs: Sequence[TensorFacts]) -> int:
    """The type of a node's first output."""
    if node.type in NEVER_INTEGER:
        return _FLOAT
    if node.type == "Cast":
        to = [each.integers() for each in node.attributes() if each.name == "to"]
        return to[-1][-1] if to and to[-1] else UNKNOWN_TYPE
    if node.type == "ConstantOfShape":
        return _constant_of(node).type or _FLOAT
    place = 0 if node.type in SAME_TYPE else _TYPE_OF_INPUT.get(node.type)
    return inputs[place].type if place is not None and place < len(inputs) else UNKNOWN_TYPE


def _constant_of(node: Node) -> TensorFacts:
    """What is proved of the tensor in a node's attributes."""
    for attribute in node.attributes():
        for tensor in attribute.tensors():
            return _constant(tensor)
        if attribute.name in ("value_int", "value_ints"):
            return _of_integers(_INT64, attribute.integers())
        if attribute.name in ("value_float", "value_floats"):
            return TensorFacts(_FLOAT, has_elements=True)
    return UNKNOWN


def _constant(message: Message) -> TensorFacts:
    """What is proved of a constant."""
    constant = graph_nodes.constant(message)
    axes, has_elements = len(constant.shape), constant.size > 0
    is_small = constant.raw is None or len(constant.raw) <= _MAX_CONSTANT_BYTES
    integers = constant.integers() if is_small else None
    if integers is None:
        return TensorFacts(constant.type, has_elements=has_elements, axes=axes, is_constant=True)
    proved = _of_integers(constant.type, integers)
    return proved._replace(has_elements=has_elements, axes=axes, is_constant=True)


def _of_integers(kind: int, values: Sequence[int]) -> TensorFacts:
    is_natural = all(value >= 0 for value in values)
    return TensorFacts(kind, is_natural, is_natural or -1 not in values, has_elements=bool(values))
