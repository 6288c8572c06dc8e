"""Weight sharing of an ONNX graph: parameters and connections of each layer.

A *connection* is one use of one parameter for one row. A convolution uses each of its parameters at
every output position, a recurrent layer at every time step, a dense layer once. The ratio of
connections to parameters is how often a weight is shared. Taps on padding count as connections, as
in LeCun et al. (1998). Needs the package `onnx`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

# By operator, the positions of the inputs that may be parameters.
_LAYERS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2, 3),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
}
_RECURRENT = ("RNN", "LSTM", "GRU")
_REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_IR_OF_DEFAULTS = 4

Shape = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output of the graph; an axis of any size has a name instead of a number.

    Attributes:
        dtype: the element type, or the whole type of a value that is no tensor.
        shape: None of a tensor of any shape, and of a value that is no tensor.
    """

    name: str
    dtype: str
    shape: Shape | None
    is_tensor: bool = True


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with parameters; nodes that use the same parameters in the same way are one layer.

    Attributes:
        name: name of its first parameter.
        kind: the ONNX operator.
        parameters: number of learnt values.
        output: the output's shape for one row; an axis of any size has a name.
        positions: uses of each parameter for one row; None if that depends on the input.
    """

    name: str
    kind: str
    parameters: int
    output: Shape
    positions: int | None

    @property
    def connections(self) -> int | None:
        """Uses of parameters for one row; None if that depends on the input."""
        return None if self.positions is None else self.parameters * self.positions


@dataclass(frozen=True, slots=True)
class Graph:
    """The tensors, layers and sizes of a graph.

    Attributes:
        defaults: inputs that a request may leave out, as the graph has an initializer for them.
        uncounted: number of nodes that belong to no layer, by operator.
        parameters: of all layers; shared ones are counted once.
        constants: floating-point values that belong to no layer, such as normalisation.
    """

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    layers: tuple[Layer, ...]
    parameters: int
    constants: int
    uncounted: Mapping[str, int]
    defaults: tuple[str, ...] = ()

    @property
    def connections(self) -> int | None:
        """Connections of all layers; None if that depends on the input."""
        each = [layer.connections for layer in self.layers]
        known = [connections for connections in each if connections is not None]
        return sum(known) if len(known) == len(each) else None


def read_graph(model: bytes, batch_axis: str | None) -> Graph:
    """The tensors and layers of an ONNX file; `batch_axis` is the name of the axis of rows."""
    whole = onnx.load_model_from_string(model)
    graph = whole.graph
    initialised = {tensor.name: tensor for tensor in graph.initializer}
    shapes = _shapes_of_one_row(model, batch_axis)
    real = sum(math.prod(t.dims) for t in graph.initializer if t.data_type in _REAL)
    used = {name for node in graph.node for name in _parameters(node, initialised)}
    learnt = sum(math.prod(initialised[name].dims) for name in used)
    return Graph(
        inputs=tuple(_tensor(value) for value in graph.input if value.name not in initialised),
        outputs=tuple(_tensor(value) for value in graph.output),
        layers=_layers(graph, initialised, shapes),
        parameters=learnt,
        constants=real - learnt,
        # In an older file no initializer can be replaced.
        defaults=tuple(
            value.name
            for value in graph.input
            if value.name in initialised and whole.ir_version >= _IR_OF_DEFAULTS
        ),
        uncounted=MappingProxyType(
            Counter(node.op_type for node in graph.node if not _parameters(node, initialised))
        ),
    )


def _shapes_of_one_row(model: bytes, batch_axis: str | None) -> dict[str, Shape]:
    """The shape of every tensor for a batch of one row."""
    one_row = onnx.load_model_from_string(model)
    for value in one_row.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if batch_axis is not None and dimension.dim_param == batch_axis:
                dimension.dim_value = 1
    # The stored shapes were inferred for any number of rows.
    one_row.graph.ClearField("value_info")
    for value in one_row.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred: ModelProto = onnx.shape_inference.infer_shapes(one_row, data_prop=True)
    values = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    return {value.name: _shape(value) for value in values}


def _parameters(node: NodeProto, initialised: Mapping[str, TensorProto]) -> list[str]:
    positions = _LAYERS.get(node.op_type, ())
    return [
        node.input[position]
        for position in positions
        if position < len(node.input) and node.input[position] in initialised
    ]


def _layers(
    graph: GraphProto, initialised: Mapping[str, TensorProto], shapes: Mapping[str, Shape]
) -> tuple[Layer, ...]:
    """All layers in the graph's order; one unrolled over time (a node per step) is one layer."""
    found: dict[tuple[object, ...], Layer] = {}
    for node in graph.node:
        names = _parameters(node, initialised)
        if not names:
            continue
        layer = _layer(node, initialised, shapes)
        key = (layer.kind, layer.output, *names)
        if before := found.get(key):
            uses = (before.positions, layer.positions)
            known = [positions for positions in uses if positions is not None]
            layer = replace(layer, positions=sum(known) if len(known) == len(uses) else None)
        found[key] = layer
    return tuple(found.values())


def _layer(
    node: NodeProto, initialised: Mapping[str, TensorProto], shapes: Mapping[str, Shape]
) -> Layer:
    names = _parameters(node, initialised)
    output = shapes.get(node.output[0], ())
    if node.op_type in _RECURRENT:
        repeated: Shape = shapes.get(node.input[0], ("?",))[:1]
    elif node.op_type.startswith("Conv"):
        repeated = output[2:] or ("?",)
    else:
        repeated = output[:-1] or ("?",)
    return Layer(
        name=names[0].removesuffix(".weight"),
        kind=node.op_type,
        parameters=sum(math.prod(initialised[name].dims) for name in names),
        output=output,
        positions=_product(repeated),
    )


def _product(sizes: Sequence[int | str]) -> int | None:
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def _tensor(value: ValueInfoProto) -> GraphTensor:
    is_tensor = value.type.WhichOneof("value") == "tensor_type"
    has_shape = is_tensor and value.type.tensor_type.HasField("shape")
    shape = _shape(value) if has_shape else None
    return GraphTensor(value.name, _type(value.type), shape, is_tensor=is_tensor)


def _type(declared: TypeProto) -> str:
    match declared.WhichOneof("value"):
        case "tensor_type":
            return TensorProto.DataType.Name(declared.tensor_type.elem_type)
        case "sequence_type":
            return f"seq({_type(declared.sequence_type.elem_type)})"
        case "map_type":
            key = TensorProto.DataType.Name(declared.map_type.key_type)
            return f"map({key}, {_type(declared.map_type.value_type)})"
        case "optional_type":
            return f"optional({_type(declared.optional_type.elem_type)})"
        case "sparse_tensor_type":
            element = TensorProto.DataType.Name(declared.sparse_tensor_type.elem_type)
            return f"sparse({element})"
        case other:
            return str(other)


def _shape(value: ValueInfoProto) -> Shape:
    return tuple(
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or "?"
        for dimension in value.type.tensor_type.shape.dim
    )
