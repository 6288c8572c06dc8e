"""Place of the batch axis in the tensors of an ONNX graph, and reductions along it.

The batch axis is the first axis of every input. A transposition or a new axis in front moves it, as
in networks whose first axis is time; operators that keep it are followed.

Rules:
- Only tensors whose values depend on the inputs have a batch axis. Constants and sizes have none.
- Where the place is not known, the batch axis counts as the first.
- Axes that are no constant count as all axes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from weir.bundle import graph_nodes
from weir.bundle.graph_nodes import Attribute, Graph, Message, Node

# No list of axes and no shape is longer.
_MOST_INTEGERS = 64


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REDUCTIONS = _words("""
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
    """)
_RECURRENT = _words("GRU LSTM RNN")
_ARGUMENTS = frozenset(("ArgMax", "ArgMin"))

# The outputs have the axes of the first input.
_AXES_OF_FIRST = _words("""
    Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization Cast CastLike Ceil Celu Clip Cos Cosh
    CumSum DequantizeLinear Dropout DynamicQuantizeLinear Elu Erf Exp Floor Gelu GroupNormalization
    HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization
    LeakyRelu Log LogSoftmax LpNormalization Mish Neg Not Pad QuantizeLinear RMSNormalization
    Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Slice Softmax Softplus Softsign Split
    Sqrt Swish Tan Tanh ThresholdedRelu Tile TopK Trilu
    """)
# The inputs are broadcast to each other.
_BROADCAST = _words("""
    Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max
    Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor
    """)
# The outputs have the batch axis first if the inputs do, and as many axes as the first input.
_ROWS_OF_FIRST = _words("""
    AveragePool Conv ConvTranspose GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool
    """)
_ML = "ai.onnx.ml"
_ML_CLASSIFIERS = _words("LinearClassifier SVMClassifier TreeEnsembleClassifier")
_ML_REGRESSORS = _words("LinearRegressor SVMRegressor TreeEnsembleRegressor")
_ML_ROWS_OF_FIRST = _words("""
    ArrayFeatureExtractor Binarizer Imputer LabelEncoder Normalizer Scaler
    """)
# They keep a list of integers, whatever its shape becomes.
_KEEPS_INTEGERS = _words("Cast Flatten Identity Reshape Squeeze Unsqueeze")


Attributes = Mapping[str, Attribute]


class TensorAxes(NamedTuple):
    """What is known of a tensor's axes.

    Attributes:
        rank: how many there are.
        place: of the batch axis among them.
        integers: the values of a small constant.
        is_value: whether its values depend on the inputs.
    """

    rank: int | None = None
    place: int | None = None
    integers: tuple[int, ...] | None = None
    is_value: bool = True


Rule = Callable[[Sequence[TensorAxes], Attributes], TensorAxes]

_UNKNOWN, _OMITTED = TensorAxes(), TensorAxes(rank=0, is_value=False)


class BatchPlaces:
    """The axes of a graph's tensors, node by node."""

    def __init__(self, graph: Graph | None = None) -> None:
        """Know what a graph declares; of the body of a function, nothing is known."""
        self._ranks = {} if graph is None else _ranks(graph)
        self._tensors: dict[bytes, TensorAxes] = {}
        if graph is None:
            return
        for name in graph.inputs():
            rank = self._ranks.get(name)
            self._tensors[name] = TensorAxes(rank, place=None if rank == 0 else 0)
        for name, message in graph.initializer_messages():
            self._tensors[name] = _constant(message)

    def add(self, node: Node, depends: Sequence[bool]) -> bool:
        """Follow a node; whether it reduces values along the batch axis.

        Args:
            depends: for each input, whether its values depend on those of the graph's inputs.
        """
        inputs = [
            self._tensors.get(name, _UNKNOWN)._replace(is_value=is_value) if name else _OMITTED
            for name, is_value in zip(node.inputs, depends, strict=True)
        ]
        attributes = {attribute.name: attribute for attribute in node.attributes()}
        reduced = _reduced(node, inputs, attributes)
        made = _made(node, inputs, attributes)
        for place, name in enumerate(node.outputs):
            axes = made[min(place, len(made) - 1)]
            if axes.rank is None and name in self._ranks:
                axes = axes._replace(rank=self._ranks[name])
            self._tensors[name] = axes
        return reduced is not None and bool(inputs) and _is_reduced(inputs[0], reduced)


def _is_reduced(tensor: TensorAxes, axes: Sequence[int]) -> bool:
    if not tensor.is_value:
        return False
    # A negative axis of an unknown number of axes counts as another one than the first.
    numbers = {axis + (tensor.rank or 0) if axis < 0 else axis for axis in axes}
    return not axes or (tensor.place or 0) in numbers


def _reduced(
    node: Node, inputs: Sequence[TensorAxes], attributes: Attributes
) -> Sequence[int] | None:
    """The axes that a node reduces, none for all of them; None if it reduces nothing."""
    if node.domain:
        return None
    if node.type in _ARGUMENTS:
        return [_integer(attributes, "axis", 0)]
    if node.type not in _REDUCTIONS:
        return None
    is_given = any(node.inputs[1:2])
    if is_given:
        axes = inputs[1].integers
    else:
        axes = tuple(attributes["axes"].integers()) if "axes" in attributes else ()
    if axes:
        return axes
    # Axes that are not known may be any.
    is_no_op = axes is not None and _integer(attributes, "noop_with_empty_axes", 0)
    return None if is_no_op else ()


def _made(node: Node, inputs: Sequence[TensorAxes], attributes: Attributes) -> Sequence[TensorAxes]:
    """The axes of a node's outputs; the last are those of all further outputs."""
    if node.domain:
        return _made_by_ml(node, inputs) if node.domain == _ML else [_UNKNOWN]
    if node.type in _RECURRENT and inputs:
        return _recurrent(inputs[0], attributes)
    reduced = _reduced(node, inputs, attributes)
    if reduced is not None and inputs:
        is_kept = _integer(attributes, "keepdims", 1) != 0
        return [_same(inputs, attributes) if is_kept else _without(inputs[0], reduced)]
    rule = _RULES.get(node.type)
    found = rule(inputs, attributes) if rule and (inputs or node.type == "Constant") else _UNKNOWN
    integers = _integers_of(node, inputs)
    return [found if integers is None else found._replace(integers=integers)]


def _made_by_ml(node: Node, inputs: Sequence[TensorAxes]) -> Sequence[TensorAxes]:
    place = 0 if inputs and _is_first(inputs) else None
    if node.type in _ML_CLASSIFIERS:
        return [TensorAxes(1, place), TensorAxes(2, place)]
    if node.type in _ML_REGRESSORS:
        return [TensorAxes(2, place)]
    if node.type in _ML_ROWS_OF_FIRST:
        return [TensorAxes(inputs[0].rank if inputs else None, place)]
    return [TensorAxes(None, place)]


def _is_first(inputs: Sequence[TensorAxes]) -> bool:
    """Whether the batch axis is the first of all inputs that have one."""
    return all(each.place == 0 for each in inputs if each.is_value)


def _same(inputs: Sequence[TensorAxes], _attributes: Attributes) -> TensorAxes:
    return inputs[0]._replace(integers=None)


def _rows(inputs: Sequence[TensorAxes], _attributes: Attributes) -> TensorAxes:
    return TensorAxes(inputs[0].rank, 0 if _is_first(inputs) else None)


def _flattened(inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    """The axes of the output of `Flatten` and `Gemm`."""
    is_kept = not _integer(attributes, "transA", 0) and _integer(attributes, "axis", 1) > 0
    return TensorAxes(2, 0 if is_kept and _is_first(inputs) else None)


def _broadcast(inputs: Sequence[TensorAxes], _attributes: Attributes) -> TensorAxes:
    ranks = [each.rank for each in inputs]
    if None in ranks:
        return _UNKNOWN
    rank = max((each for each in ranks if each is not None), default=0)
    # Axes are aligned at the last one.
    places = {
        None if each.place is None or each.rank is None else each.place + rank - each.rank
        for each in inputs
        if each.is_value
    }
    return TensorAxes(rank, places.pop() if len(places) == 1 else None)


def _expanded(inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    shape = inputs[1].integers if len(inputs) > 1 else None
    if shape is None:
        return _UNKNOWN
    return _broadcast([inputs[0], TensorAxes(len(shape), is_value=False)], attributes)


def _recurrent(first: TensorAxes, attributes: Attributes) -> Sequence[TensorAxes]:
    if _integer(attributes, "layout", 0):
        place = 0 if first.place == 0 else None
        return [TensorAxes(4, place), TensorAxes(3, place)]
    is_known = first.place == 1
    return [TensorAxes(4, 2 if is_known else None), TensorAxes(3, 1 if is_known else None)]


def _transposed(inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    first = inputs[0]
    order = attributes["perm"].integers() if "perm" in attributes else []
    if not order and first.rank is not None:
        order = list(reversed(range(first.rank)))
    place = order.index(first.place) if first.place in order else None
    return TensorAxes(len(order) or None, place)


def _squeezed(inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    return _without(inputs[0], _axes(inputs, attributes))


def _unsqueezed(inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    return _with(inputs[0], _axes(inputs, attributes))


def _axes(inputs: Sequence[TensorAxes], attributes: Attributes) -> Sequence[int]:
    """The axes in a node's attribute or input; none if they are not known."""
    if len(inputs) > 1:
        return inputs[1].integers or ()
    return attributes["axes"].integers() if "axes" in attributes else ()


def _joined(inputs: Sequence[TensorAxes], _attributes: Attributes) -> TensorAxes:
    values = {(each.rank, each.place) for each in inputs if each.is_value}
    return TensorAxes(*values.pop()) if len(values) == 1 else _UNKNOWN


def _without(tensor: TensorAxes, axes: Sequence[int]) -> TensorAxes:
    if tensor.rank is None or not axes:
        return _UNKNOWN
    gone = {axis % tensor.rank if tensor.rank else 0 for axis in axes}
    rank, place = tensor.rank - len(gone), tensor.place
    if place is None or place in gone:
        return TensorAxes(rank)
    return TensorAxes(rank, place - sum(axis < place for axis in gone))


def _with(tensor: TensorAxes, axes: Sequence[int]) -> TensorAxes:
    if tensor.rank is None or not axes:
        return _UNKNOWN
    rank = tensor.rank + len(axes)
    new = {axis % rank for axis in axes}
    old = [axis for axis in range(rank) if axis not in new]
    is_known = tensor.place is not None and tensor.place < len(old)
    return TensorAxes(rank, old[tensor.place or 0] if is_known else None)


def _gathered(inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    if len(inputs) < 2:
        return _UNKNOWN
    data, indices = inputs[:2]
    if data.rank is None or indices.rank is None:
        return _UNKNOWN
    rank = data.rank + indices.rank - 1
    axis = _integer(attributes, "axis", 0) % max(data.rank, 1)
    if not data.is_value and indices.place is not None:
        return TensorAxes(rank, axis + indices.place)
    if indices.is_value or data.place is None or data.place == axis:
        return TensorAxes(rank)
    return TensorAxes(rank, data.place + (indices.rank - 1 if axis < data.place else 0))


def _multiplied(inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    """The axes of a product of matrices; its last two are of other kinds."""
    if len(inputs) < 2:
        return _UNKNOWN
    one, other = inputs[:2]
    if one.rank is None or other.rank is None or min(one.rank, other.rank) < 2:
        return _UNKNOWN
    found = _broadcast(inputs, attributes)
    if found.rank is None or found.place is None:
        return found
    is_row_of_first = not other.is_value and found.place == found.rank - 2
    return found if found.place < found.rank - 2 or is_row_of_first else TensorAxes(found.rank)


def _reshaped(inputs: Sequence[TensorAxes], _attributes: Attributes) -> TensorAxes:
    shape = inputs[1].integers if len(inputs) > 1 else None
    if not shape:
        return _UNKNOWN
    place = inputs[0].place
    if place == 0 and shape[:2] == (1, -1):
        # A new axis in front.
        return TensorAxes(len(shape), 1)
    is_first = place == 0 and shape[0] == -1
    is_kept = place is not None and shape[: place + 1] == (0,) * (place + 1)
    return TensorAxes(len(shape), place if is_first or is_kept else None)


def _integers_of(node: Node, inputs: Sequence[TensorAxes]) -> tuple[int, ...] | None:
    """The integers of the output of an operator that keeps or joins those of its inputs."""
    if node.type in _KEEPS_INTEGERS:
        return inputs[0].integers if inputs else None
    if node.type != "Concat":
        return None
    parts = [each.integers for each in inputs]
    joined = tuple(value for part in parts if part is not None for value in part)
    return None if None in parts or len(joined) > _MOST_INTEGERS else joined


def _integer(attributes: Attributes, name: str, default: int) -> int:
    found = attributes[name].integers() if name in attributes else []
    return found[-1] if found else default


def _constant_of(_inputs: Sequence[TensorAxes], attributes: Attributes) -> TensorAxes:
    """The axes of the output of `Constant`."""
    for name, attribute in attributes.items():
        for message in attribute.tensors():
            return _constant(message)
        if name in ("value_int", "value_ints"):
            values = attribute.integers()
            kept = tuple(values) if len(values) <= _MOST_INTEGERS else None
            return TensorAxes(int(name == "value_ints"), integers=kept)
        if name in ("value_float", "value_string"):
            return TensorAxes(0)
        if name in ("value_floats", "value_strings"):
            return TensorAxes(1)
    return _UNKNOWN


def _constant(message: Message) -> TensorAxes:
    constant = graph_nodes.constant(message)
    integers = constant.integers() if constant.size <= _MOST_INTEGERS else None
    return TensorAxes(len(constant.shape), integers=None if integers is None else tuple(integers))


def _ranks(graph: Graph) -> dict[bytes, int]:
    """The number of axes of each tensor that a graph declares with a shape."""
    return {name: each.rank for name, each in graph.declared() if each.rank is not None}


def _of_rank(rank: int) -> Rule:
    return lambda _inputs, _attributes: TensorAxes(rank)


_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_AXES_OF_FIRST, _same),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_ROWS_OF_FIRST, _rows),
    "Concat": _joined,
    "Constant": _constant_of,
    "Expand": _expanded,
    "Flatten": _flattened,
    "Gather": _gathered,
    "Gemm": _flattened,
    "MatMul": _multiplied,
    "Range": _of_rank(1),
    "Reshape": _reshaped,
    "Shape": _of_rank(1),
    "Size": _of_rank(0),
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
"""By operator: the axes of its outputs."""
