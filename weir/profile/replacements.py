"""Nodes of a graph that may be avoidable, and what replaces them.

Rules:
- A candidate is found by its nodes and by the shapes of the largest profiled batch.
- The replacement computes the same numbers from the same inputs of the graph.
- A transpose or a cast that an input or output of the graph asks for is no candidate.
- A transpose that ONNX Runtime has moved is no candidate: the graph as written has it elsewhere. In
  graphs of INT8 it moves the first transpose behind the normalisation; `NARROW_CONSTANT` is the fix
  for that.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weir.bundle.graph_nodes import Constant, Graph, Node
from weir.profile.graph_profile import GraphProfile, Inputs, Tensor
from weir.profile.onnx_writer import NewNode

Array = NDArray[Any]

_MOST_CHANNELS = 16
_MOST_TABLE_BYTES = 1 << 26
_BINARY = ("Add", "Sub", "Mul", "Div")
# One output element for each input element, so a transpose may go before or behind.
_UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Log", "Sqrt", "Erf", "LeakyRelu", "Elu")
# numpy has no BF16, so nothing that needs an array of it is tried.
_DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in (
        *(("float", "f4"), ("double", "f8"), ("float16", "f2")),
        *(("uint8", "u1"), ("int8", "i1"), ("int32", "i4"), ("int64", "i8")),
    )
}
# What a transpose can be moved over, with one input that is no constant.
_ELEMENTWISE = (*_BINARY, *_UNARY, "Cast", "Identity", "QuantizeLinear", "DequantizeLinear")
_FLOATS = ("float", "double", "float16", "bfloat16")


class Kind(NamedTuple):
    """A kind of avoidable time, and how to avoid it in one sentence."""

    name: str
    fix: str


BROADCAST = Kind(
    "channels-last broadcast",
    "Transpose to [N, C, H, W] first, x.permute(0, 3, 1, 2), and give the constant the shape "
    "[C, 1, 1], mean.reshape(-1, 1, 1): the last axis is then long enough for vector instructions.",
)
NARROW_CONSTANT = Kind(
    "per-channel constant",
    "Repeat the constant along the width, mean.reshape(-1, 1, 1).expand(-1, 1, width): before "
    "quantised layers ONNX Runtime moves the transpose to [N, C, H, W] behind the arithmetic.",
)
WIDE_TRANSPOSE = Kind(
    "transpose after a cast",
    "Transpose before the cast: the narrower type is less to move.",
)
TRANSPOSE_CHAIN = Kind(
    "transposes in a row",
    "Join the transposes into one, or none if they cancel: what is between them does not depend on "
    "the order of the axes.",
)
CAST = Kind(
    "cast between floating-point types",
    "Export the whole network in one floating-point type that the device computes in: FP32 on a "
    "CPU.",
)
GEMM = Kind(
    "MatMul and Add",
    "Reshape the input to two axes, so that ONNX Runtime adds the bias inside one Gemm.",
)
PROJECTIONS = Kind(
    "projections of one input",
    "Join the weights of the projections into one matrix, and split its result.",
)
TABLE = Kind(
    "projection of an embedding",
    "Multiply the embedding's table with the weights at export: the projection is then a look-up.",
)


class SmallGraph(NamedTuple):
    """A few nodes to run alone, with their inputs and constants."""

    nodes: Sequence[NewNode]
    inputs: Inputs
    constants: Mapping[str, Array] = {}


Tensors = Mapping[bytes, Tensor]


class Candidate(NamedTuple):
    """Nodes that may be avoidable, and the graphs that prove it.

    Attributes:
        graphs: the nodes and their replacement with the shapes of a run; None: nothing replaces
            the nodes.
    """

    kind: Kind
    nodes: Sequence[int]
    graphs: Callable[[Tensors], tuple[SmallGraph, SmallGraph]] | None


def candidates(profile: GraphProfile) -> Iterator[Candidate]:
    """Every candidate of a graph; a node may belong to several."""
    view = _View(profile)
    yield from _broadcasts(view)
    yield from _wide_transposes(view)
    yield from _transpose_chains(view)
    yield from _casts(view)
    yield from _gemms(view)
    yield from _tables(view)
    yield from _projections(view)


class _View:
    """The nodes of a profiled graph by their tensors, in its largest batch."""

    def __init__(self, profile: GraphProfile) -> None:
        self.profile = profile
        self.tensors = profile.runs[-1].tensors
        self.producers: dict[bytes, int] = {}
        self._consumers: dict[bytes, list[int]] = defaultdict(list)
        self._nodes = {
            place: each.node for place, each in enumerate(profile.nodes) if each.node is not None
        }
        for place, node in self._nodes.items():
            self.producers |= dict.fromkeys(node.outputs, place)
            for name in node.inputs:
                self._consumers[name].append(place)
        self.written = _WrittenGraph(profile.written)

    def of_type(self, *types: str) -> Iterator[tuple[int, Node]]:
        """The nodes of these operators, whose outputs are known."""
        for place, node in self._nodes.items():
            if node.type in types and not node.domain and node.outputs[0] in self.tensors:
                yield place, node

    def at(self, place: int) -> Node:
        """The node at a place."""
        return self._nodes[place]

    def next(self, node: Node) -> tuple[int, Node] | None:
        """The node that alone reads a node's one output; None if others do."""
        (name, *others) = node.outputs
        readers = self._consumers[name]
        if others or len(readers) != 1 or name in self.profile.outputs:
            return None
        return readers[0], self.at(readers[0])

    def readers(self, name: bytes) -> Sequence[int]:
        """The places of the nodes that read a tensor."""
        return self._consumers[name]

    def constant(self, name: bytes) -> Constant | None:
        """The initializer of this name."""
        return self.profile.constants.get(name)

    def matrix(self, node: Node) -> tuple[int, int] | None:
        """The rows and columns of the constant matrix by which a node multiplies a tensor."""
        if len(node.inputs) < 2 or node.inputs[0] not in self.tensors:
            return None
        constant, out = self.constant(node.inputs[1]), self.tensors[node.outputs[0]]
        data = self.tensors[node.inputs[0]]
        if constant is None or len(constant.shape) != 2 or out.type != "float" or not data.shape:
            return None
        is_plain = not any(a.name == "transA" and any(a.integers()) for a in node.attributes())
        return (data.shape[-1], out.shape[-1]) if is_plain else None


class _WrittenGraph:
    """The nodes of a graph as it is written, before ONNX Runtime moves transposes."""

    def __init__(self, graph: Graph) -> None:
        nodes = list(graph.nodes())
        self._producers = {name: node for node in nodes for name in node.outputs}
        self._by_name = {(node.name, node.type): node for node in nodes if node.name}
        # The tensors that depend on an input.
        self._varying = set(graph.inputs()) - set(graph.initializers())
        for node in nodes:
            if self._varying.intersection(node.inputs):
                self._varying.update(node.outputs)
        self.has_wide_transpose = any(
            "Cast" in self._types_before(node) for node in nodes if node.type == "Transpose"
        )

    def reads_transposed(self, node: Node) -> bool:
        """Whether the node of this name has its data from a transpose, through elementwise nodes.

        Without a name, any node of the type may be the one that is asked for.
        """
        found = self._by_name.get((node.name, node.type))
        asked = (
            [found]
            if found is not None
            else [each for each in self._producers.values() if each.type == node.type]
        )
        return any("Transpose" in self._types_before(each) for each in asked)

    def _types_before(self, node: Node) -> list[str]:
        """The operators of the elementwise nodes before a node, and of the first other one."""
        types: list[str] = []
        while True:
            data = [name for name in node.inputs if name in self._varying]
            if len(data) != 1 or data[0] not in self._producers:
                return types
            node = self._producers[data[0]]
            types.append(node.type)
            if node.type not in _ELEMENTWISE:
                return types


def _broadcasts(view: _View) -> Iterator[Candidate]:
    """Arithmetic of pictures, channels last, with a constant of one value for each channel."""
    for place, node in view.of_type(*_BINARY):
        constants = [view.constant(name) for name in node.inputs]
        at = 0 if constants[0] is not None else 1
        constant, name = constants[at], node.inputs[1 - at]
        data = view.tensors.get(name)
        if constant is None or data is None or data.type not in _DTYPES:
            continue
        channels = data.shape[-1] if len(data.shape) in (4, 5) else 0
        if (
            view.tensors[node.outputs[0]].shape == data.shape
            and 1 <= channels <= _MOST_CHANNELS
            and constant.size in (1, channels)
            and (constant.size == 1 or constant.shape[-1] == channels)
        ):
            is_moved = view.written.reads_transposed(node)
            kind, graphs_of = (
                (NARROW_CONSTANT, _repeated_graphs) if is_moved else (BROADCAST, _broadcast_graphs)
            )
            yield Candidate(kind, [place], graphs_of(node, name, at, constant))


def _repeated_graphs(
    node: Node, name: bytes, at: int, constant: Constant
) -> Callable[[Tensors], tuple[SmallGraph, SmallGraph]]:
    nodes = [_with_constant(node, at)]

    def graphs(tensors: Tensors) -> tuple[SmallGraph, SmallGraph]:
        data = _array(tensors[name])
        values = np.full(constant.shape, 0.5, data.dtype)
        repeated = np.full(data.shape[-2:], 0.5, data.dtype)
        return SmallGraph(nodes, {"x": data}, {"c": values}), SmallGraph(
            nodes, {"x": data}, {"c": repeated}
        )

    return graphs


def _with_constant(node: Node, at: int) -> NewNode:
    """The node with the input `x` and the constant `c` in this place."""
    return NewNode(node.type, ("c", "x") if at == 0 else ("x", "c"), ["y"])


def _broadcast_graphs(
    node: Node, name: bytes, at: int, constant: Constant
) -> Callable[[Tensors], tuple[SmallGraph, SmallGraph]]:
    nodes = [_with_constant(node, at)]

    def graphs(tensors: Tensors) -> tuple[SmallGraph, SmallGraph]:
        last = _array(tensors[name])
        values = np.full(constant.shape, 0.5, last.dtype)
        first = np.ones((last.shape[0], last.shape[-1], *last.shape[1:-1]), last.dtype)
        each = values.reshape(-1, *[1] * (last.ndim - 2)) if values.size > 1 else values.reshape(())
        return SmallGraph(nodes, {"x": last}, {"c": values}), SmallGraph(
            nodes, {"x": first}, {"c": each}
        )

    return graphs


def _wide_transposes(view: _View) -> Iterator[Candidate]:
    """Transposes of what was cast to a wider type."""
    if not view.written.has_wide_transpose:
        return
    for place, node in view.of_type("Transpose"):
        narrow = _narrow_origin(view, node.inputs[0])
        wide = view.tensors.get(node.inputs[0])
        if narrow is None or wide is None or _itemsize(narrow) >= _itemsize(wide.type):
            continue
        yield Candidate(
            WIDE_TRANSPOSE, [place], _retyped(node.inputs[0], narrow, _permutation(node, wide))
        )


def _retyped(
    name: bytes, narrow: str, permutation: Sequence[int]
) -> Callable[[Tensors], tuple[SmallGraph, SmallGraph]]:
    nodes = [NewNode("Transpose", ["x"], ["y"], {"perm": permutation})]

    def graphs(tensors: Tensors) -> tuple[SmallGraph, SmallGraph]:
        wide = tensors[name]
        before, after = _array(wide), _array(Tensor(narrow, wide.shape))
        return SmallGraph(nodes, {"x": before}), SmallGraph(nodes, {"x": after})

    return graphs


def _narrow_origin(view: _View, name: bytes) -> str | None:
    """The type of a tensor before a cast, if only arithmetic with constants lies between."""
    while name in view.producers:
        node = view.at(view.producers[name])
        if len(view.readers(name)) != 1 or node.domain:
            return None
        data = [each for each in node.inputs if view.constant(each) is None]
        if len(data) != 1:
            return None
        if node.type == "Cast":
            origin = view.tensors.get(data[0])
            return origin.type if origin and origin.type in _DTYPES else None
        if node.type not in (*_BINARY, *_UNARY):
            return None
        name = data[0]
    return None


def _transpose_chains(view: _View) -> Iterator[Candidate]:
    """Two transposes, between which are reshapes of whole axes or functions of each element."""
    for place, node in view.of_type("Transpose"):
        data = view.tensors.get(node.inputs[0])
        if data is None or data.type not in _DTYPES:
            continue
        first = _permutation(node, data)
        groups = [[axis] for axis in first]
        following = view.next(node)
        while following is not None:
            at, later = following
            out = view.tensors.get(later.outputs[0])
            if later.domain or out is None:
                break
            if later.type == "Transpose":
                second = _permutation(later, out)
                joined = [axis for group in second for axis in groups[group]]
                if sorted(joined) == list(range(len(data.shape))):
                    yield Candidate(
                        TRANSPOSE_CHAIN,
                        [place, at],
                        _joined(node.inputs[0], first, later, second, joined),
                    )
                break
            if later.type in ("Reshape", "Flatten"):
                regrouped = _regroup(groups, data.shape, out.shape)
                if regrouped is None:
                    break
                groups = regrouped
            elif later.type not in _UNARY:
                break
            following = view.next(later)


def _regroup(
    groups: Sequence[Sequence[int]], sizes: Sequence[int], shape: Sequence[int]
) -> list[list[int]] | None:
    """The axes in each axis of a reshaped tensor; None if it cuts one apart."""
    axes = [axis for group in groups for axis in group]
    regrouped: list[list[int]] = []
    for size in shape:
        group: list[int] = []
        while axes and prod(sizes[axis] for axis in group) < size:
            group.append(axes.pop(0))
        if prod(sizes[axis] for axis in group) != size:
            return None
        regrouped.append(group)
    while axes and regrouped and sizes[axes[0]] == 1:
        regrouped[-1].append(axes.pop(0))
    return None if axes else regrouped


def _joined(
    name: bytes,
    first: Sequence[int],
    second_node: Node,
    second: Sequence[int],
    joined: Sequence[int],
) -> Callable[[Tensors], tuple[SmallGraph, SmallGraph]]:
    def graphs(tensors: Tensors) -> tuple[SmallGraph, SmallGraph]:
        data = _array(tensors[name])
        between = tensors[second_node.inputs[0]].shape
        before = [
            NewNode("Transpose", ["x"], ["a"], {"perm": first}),
            NewNode("Reshape", ["a", "shape"], ["b"]),
            NewNode("Transpose", ["b"], ["y"], {"perm": second}),
        ]
        after = [NewNode("Transpose", ["x"], ["y"], {"perm": joined})]
        moved = [axis for axis in joined if data.shape[axis] > 1]
        return (
            SmallGraph(before, {"x": data}, {"shape": np.array(between, np.int64)}),
            SmallGraph([] if moved == sorted(moved) else after, {"x": data}),
        )

    return graphs


def _casts(view: _View) -> Iterator[Candidate]:
    """Casts inside the graph from one floating-point type to another."""
    for place, node in view.of_type("Cast"):
        data, out = view.tensors.get(node.inputs[0]), view.tensors[node.outputs[0]]
        if (
            data is not None
            and data.type in _FLOATS
            and out.type in _FLOATS
            and node.inputs[0] in view.producers
            and node.outputs[0] not in view.profile.outputs
        ):
            yield Candidate(CAST, [place], None)


def _gemms(view: _View) -> Iterator[Candidate]:
    """MatMul with a constant matrix, and Add of a constant row."""
    for place, node in view.of_type("MatMul"):
        matrix, following = view.matrix(node), view.next(node)
        if matrix is None or following is None or following[1].type != "Add":
            continue
        biases = [view.constant(name) for name in following[1].inputs]
        if any(bias is not None and bias.size == matrix[1] for bias in biases):
            yield Candidate(GEMM, [place, following[0]], _gemm_graphs(node.inputs[0], matrix))


def _gemm_graphs(
    name: bytes, matrix: tuple[int, int]
) -> Callable[[Tensors], tuple[SmallGraph, SmallGraph]]:
    def graphs(tensors: Tensors) -> tuple[SmallGraph, SmallGraph]:
        data = _array(tensors[name])
        constants = {"w": _values(matrix), "b": _values((matrix[1],))}
        before = [NewNode("MatMul", ["x", "w"], ["a"]), NewNode("Add", ["a", "b"], ["y"])]
        after = [NewNode("Gemm", ["x", "w", "b"], ["y"])]
        flat = data.reshape(-1, matrix[0])
        return SmallGraph(before, {"x": data}, constants), SmallGraph(after, {"x": flat}, constants)

    return graphs


def _projections(view: _View) -> Iterator[Candidate]:
    """Products of one tensor with several constant matrices."""
    by_input: dict[bytes, list[tuple[int, tuple[int, int]]]] = defaultdict(list)
    for place, node in view.of_type("MatMul", "Gemm"):
        matrix = view.matrix(node)
        if matrix is not None:
            by_input[node.inputs[0]].append((place, matrix))
    for name, found in by_input.items():
        if len(found) > 1:
            matrices = [matrix for _, matrix in found]
            yield Candidate(
                PROJECTIONS, [place for place, _ in found], _projection_graphs(name, matrices)
            )


def _projection_graphs(
    name: bytes, matrices: Sequence[tuple[int, int]]
) -> Callable[[Tensors], tuple[SmallGraph, SmallGraph]]:
    def graphs(tensors: Tensors) -> tuple[SmallGraph, SmallGraph]:
        rows, widths = matrices[0][0], [width for _, width in matrices]
        data = {"x": _array(tensors[name]).reshape(-1, rows)}
        outputs = [f"y{at}" for at in range(len(widths))]
        apart = [NewNode("MatMul", ["x", f"w{at}"], [y]) for at, y in enumerate(outputs)]
        together = [
            NewNode("MatMul", ["x", "w"], ["all"]),
            NewNode("Split", ["all", "sizes"], outputs, {"axis": 1}),
        ]
        return (
            SmallGraph(apart, data, {f"w{at}": _values(each) for at, each in enumerate(matrices)}),
            SmallGraph(
                together,
                data,
                {"w": _values((rows, sum(widths))), "sizes": np.array(widths, np.int64)},
            ),
        )

    return graphs


def _tables(view: _View) -> Iterator[Candidate]:
    """Products of an embedding with a constant matrix."""
    for place, node in view.of_type("Gather"):
        table, ids = view.constant(node.inputs[0]), view.tensors.get(node.inputs[1])
        if table is None or ids is None or len(table.shape) != 2 or _axis(node) != 0:
            continue
        readers = view.readers(node.outputs[0])
        for reader in readers:
            matrix = view.matrix(view.at(reader))
            if (
                view.at(reader).type in ("MatMul", "Gemm")
                # A Gemm that adds the embedding to a product reads it in another place.
                and view.at(reader).inputs[0] == node.outputs[0]
                and matrix is not None
                and ids.type in ("int32", "int64")
                and 4 * table.shape[0] * matrix[1] <= _MOST_TABLE_BYTES
            ):
                is_alone = view.next(node) is not None
                yield Candidate(
                    TABLE,
                    [place, reader] if is_alone else [reader],
                    _table_graphs(node.inputs[1], table.shape[0], matrix, is_alone=is_alone),
                )


def _table_graphs(
    name: bytes, entries: int, matrix: tuple[int, int], *, is_alone: bool
) -> Callable[[Tensors], tuple[SmallGraph, SmallGraph]]:
    def graphs(tensors: Tensors) -> tuple[SmallGraph, SmallGraph]:
        ids = tensors[name]
        chosen = np.random.default_rng(0).integers(0, entries, ids.shape)
        inputs = {"ids": chosen.astype(_DTYPES[ids.type])}
        wide = {"t": _values((entries, matrix[1]))}
        after = SmallGraph([NewNode("Gather", ["t", "ids"], ["y"])], inputs, wide)
        product = NewNode("MatMul", ["x", "w"], ["y"])
        constants = {"w": _values(matrix)}
        if not is_alone:
            return SmallGraph([product], {"x": _values((*ids.shape, matrix[0]))}, constants), after
        look_up = NewNode("Gather", ["t", "ids"], ["x"])
        constants["t"] = _values((entries, matrix[0]))
        return SmallGraph([look_up, product], inputs, constants), after

    return graphs


def _permutation(node: Node, tensor: Tensor) -> list[int]:
    """The axes of a transpose; those of its input and output have the same number."""
    for attribute in node.attributes():
        if attribute.name == "perm":
            return attribute.integers()
    return list(reversed(range(len(tensor.shape))))


def _axis(node: Node) -> int:
    return next((a.integers()[0] for a in node.attributes() if a.name == "axis"), 0)


def _itemsize(kind: str) -> int:
    return _DTYPES[kind].itemsize if kind in _DTYPES else 0


def _array(tensor: Tensor) -> Array:
    return np.ones(tensor.shape, _DTYPES[tensor.type])


def _values(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)
