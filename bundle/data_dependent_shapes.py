"""Data-dependent shapes of an ONNX graph: operators that make a shape out of the inputs' values.

Without such an operator, every shape in the graph follows from the shapes of the inputs. With one,
an output may have another number of rows for each request, whatever its first axis is called.
Reductions along the batch axis are found too (`batch_places`): what they give is of every row of a
batch, whatever the graph does with it.

Rules:
- Each tensor has two properties: its values, and its shape, may depend on the values of the inputs.
- An operator that is not listed below counts as one that makes a shape out of values: control flow,
  sequences, optionals, custom operators.
- A subgraph is not entered, since every operator that has one counts.
- A tensor that no node before makes counts as dependent. So does the output of a local function,
  unless the bodies of all local functions are free of such operators.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from weir.bundle import graph_nodes
from weir.bundle.batch_places import BatchPlaces
from weir.bundle.errors import BrokenBundle
from weir.bundle.graph_nodes import Model, Node
from weir.bundle.protobuf_wire import MalformedError

_ML, _MICROSOFT = "ai.onnx.ml", "com.microsoft"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The shape of an output follows from the values of an input; it is fixed if the input is constant.
_FROM_VALUES = frozenset(("NonMaxSuppression", "NonZero", "StringSplit", "Unique"))

# Of these, the values of the inputs at these positions.
_SHAPE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "DFT": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{
        f"Reduce{name}": (1,)
        for name in (
            "L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare",
        )
    },
}  # fmt: skip

# The output has the first input's shape, whatever shapes the others have.
_SHAPE_OF_FIRST = frozenset(("Scatter", "ScatterElements", "ScatterND", "TensorScatter"))

# The output is the input's shape itself.
_SHAPES = frozenset(("Shape", "Size"))

# The shape of an output follows from the inputs' shapes and the node's attributes.
_FROM_SHAPES = _words("""
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
    CastLike CausalConvWithState Ceil Celu Clip Concat Constant Conv ConvInteger ConvTranspose Cos
    Cosh CumProd CumSum DeformConv DepthToSpace DequantizeLinear Det Div Dropout
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp EyeLike Flatten Floor GRU Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf
    IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual LinearAttention Log LogSoftmax
    LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Multinomial Neg NegativeLogLikelihoodLoss Not Or
    PRelu Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Reciprocal RegexFullMatch Relu ReverseSequence
    RoiAlign RotaryEmbedding Round Selu Shrink Sigmoid Sign Sin Sinh Softmax SoftmaxCrossEntropyLoss
    Softplus Softsign SpaceToDepth Sqrt StringConcat Sub Sum SwiGLU Swish Tan Tanh TfIdfVectorizer
    ThresholdedRelu Transpose Trilu Where Xor
    """)
_FROM_SHAPES_ELSEWHERE: Mapping[str, frozenset[str]] = {
    _ML: _words("""
        ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder
        LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler
        TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor ZipMap
        """),
    # What ONNX Runtime's own optimiser and quantiser write.
    _MICROSOFT: _words("""
        Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu DequantizeLinear DynamicQuantizeLSTM
        DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul
        FusedMatMulActivation Gelu GroupNorm Inverse MatMulInteger16 MatMulIntegerToFloat
        MatMulNBits MultiHeadAttention NhwcConv NhwcMaxPool QAttention QEmbedLayerNormalization
        QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool
        QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere
        QuantizeLinear QuickGelu RotaryEmbedding SimplifiedLayerNormalization SkipGroupNorm
        SkipLayerNormalization SkipSimplifiedLayerNormalization
        """),
    "com.microsoft.nchwc": _words("""
        AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample
        """),
}


@dataclass(frozen=True, slots=True)
class DataDependentShapes:
    """Shapes of a graph that depend on the values of its inputs.

    `operators` are those that make a shape out of values, `outputs` those with such a shape.
    `reductions` are the operators that reduce values along the batch axis.
    """

    operators: tuple[str, ...]
    outputs: tuple[str, ...]
    reductions: tuple[str, ...] = ()


class _Dependence(NamedTuple):
    """Whether a tensor's values and its shape depend on the values of the graph's inputs."""

    values: bool
    shape: bool


_CONSTANT, _INPUT = _Dependence(values=False, shape=False), _Dependence(values=True, shape=False)
_UNKNOWN = _Dependence(values=True, shape=True)


def find(model: bytes, file: str = "model") -> DataDependentShapes:
    """The data-dependent shapes of an ONNX file; BrokenBundle if the bytes are no message."""
    try:
        return _find(graph_nodes.read(model))
    except MalformedError as error:
        raise BrokenBundle(f"{file}: expected an ONNX file, got malformed bytes: {error}") from None


def _find(model: Model) -> DataDependentShapes:
    names = {(each.domain, each.name) for each in model.functions}
    found: dict[str, None] = {}
    reductions: dict[str, None] = {}
    for function in model.functions:
        tensors = dict.fromkeys(function.inputs, _INPUT)
        # A call of another function counts as free of them here: that body is checked too.
        nodes = _reducing(function.nodes(), BatchPlaces(), tensors, reductions)
        _follow(nodes, tensors, found, names, are_clean=True)
    graph = model.graph
    tensors = dict.fromkeys(graph.inputs(), _INPUT)
    tensors |= dict.fromkeys(graph.initializers(), _CONSTANT)
    nodes = _reducing(graph.nodes(), BatchPlaces(graph), tensors, reductions)
    _follow(nodes, tensors, found, names, are_clean=not found)
    shaped = tuple(
        graph_nodes.text(name) for name in graph.outputs() if tensors.get(name, _UNKNOWN).shape
    )
    return DataDependentShapes(tuple(found), shaped, tuple(reductions))


def _follow(
    nodes: Iterable[Node],
    tensors: dict[bytes, _Dependence],
    found: dict[str, None],
    functions: set[tuple[str, str]],
    *,
    are_clean: bool,
) -> None:
    """Add outputs of nodes to `tensors`, and operators that make a shape of values to `found`."""
    for node in nodes:
        inputs = [tensors.get(name, _UNKNOWN) if name else _CONSTANT for name in node.inputs]
        if (node.domain, node.type) in functions:
            made = _any(inputs) if are_clean else _UNKNOWN
            is_maker = False
        else:
            made, is_maker = _made(node, inputs)
        if is_maker:
            found[node.type] = None
        for name in node.outputs:
            tensors[name] = made


def _reducing(
    nodes: Iterable[Node],
    places: BatchPlaces,
    tensors: Mapping[bytes, _Dependence],
    reductions: dict[str, None],
) -> Iterator[Node]:
    """The nodes; those that reduce values along the batch axis are added to `reductions`.

    Args:
        tensors: those that the nodes before a node have made.
    """
    for node in nodes:
        depends = [bool(name) and tensors.get(name, _UNKNOWN).values for name in node.inputs]
        if places.add(node, depends):
            reductions[node.type] = None
        yield node


def _made(node: Node, inputs: Sequence[_Dependence]) -> tuple[_Dependence, bool]:
    """The dependence of a node's outputs, and whether it makes a shape out of values."""
    every = _any(inputs)
    if node.domain:
        is_known = node.type in _FROM_SHAPES_ELSEWHERE.get(node.domain, ())
        return (every, False) if is_known else (_UNKNOWN, True)
    if node.type in _SHAPES:
        return _Dependence(values=every.shape, shape=False), False
    if node.type in _SHAPE_OF_FIRST:
        return _Dependence(every.values, shape=inputs[0].shape if inputs else True), False
    if node.type in _FROM_SHAPES:
        return every, False
    if node.type in _FROM_VALUES:
        makes = every.values
    elif node.type in _SHAPE_INPUTS:
        positions = _SHAPE_INPUTS[node.type]
        makes = any(inputs[place].values for place in positions if place < len(inputs))
    else:
        return _UNKNOWN, True
    return _Dependence(every.values, shape=every.shape or makes), makes


def _any(inputs: Sequence[_Dependence]) -> _Dependence:
    return _Dependence(any(each.values for each in inputs), any(each.shape for each in inputs))
