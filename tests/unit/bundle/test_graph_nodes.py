from collections.abc import Sequence

import numpy as np
import pytest
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from weir.bundle import graph_nodes
from weir.bundle.graph_nodes import Node
from weir.bundle.protobuf_wire import MalformedError

FLOAT = TensorProto.FLOAT


def graph(*nodes: NodeProto, initializers: Sequence[TensorProto] = ()) -> GraphProto:
    return helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ("batch", 4))],
        [helper.make_tensor_value_info("y", FLOAT, ("batch", 4))],
        initializers,
    )


def only_node(node: NodeProto) -> Node:
    (read,) = graph_nodes.read(helper.make_model(graph(node)).SerializeToString()).graph.nodes()
    return read


def test_names_of_a_graph_and_its_nodes_are_read() -> None:
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    clip = helper.make_node("Clip", ["x", "", "w"], ["y"], domain="ai.onnx")

    model = graph_nodes.read(
        helper.make_model(graph(clip, initializers=[weights]), ir_version=9).SerializeToString()
    )

    assert model.ir_version == 9
    assert list(model.graph.inputs()) == [b"x"]
    assert list(model.graph.outputs()) == [b"y"]
    assert list(model.graph.initializers()) == [b"w"]
    assert [(name, bytes(message)) for name, message in model.graph.initializer_messages()] == [
        (b"w", weights.SerializeToString())
    ]
    (node,) = model.graph.nodes()
    assert node[:4] == ("", "Clip", [b"x", b"", b"w"], [b"y"])


def test_values_without_a_shape_are_named() -> None:
    scalar, free = (helper.make_tensor_value_info(name, FLOAT, ()) for name in ("scalar", "free"))
    free.type.tensor_type.ClearField("shape")
    model = helper.make_model(helper.make_graph([], "graph", [scalar, free], [free, scalar]))

    read = graph_nodes.read(model.SerializeToString())

    assert list(read.graph.without_shape()) == [b"free", b"free"]


def test_every_node_is_found_in_subgraphs_and_functions() -> None:
    innermost = helper.make_graph([helper.make_node("Abs", ["x"], ["a"])], "innermost", [], [])
    branch = helper.make_node("If", ["c"], ["b"], then_branch=innermost, else_branch=innermost)
    middle = helper.make_graph([branch], "middle", [], [])
    loop = helper.make_node("Loop", ["", "c"], ["y"], body=middle)
    many = helper.make_node("Many", ["x"], ["z"], domain="custom")
    many.attribute.append(helper.make_attribute("graphs", [innermost, innermost]))
    called = helper.make_function(
        "local", "f", ["p"], ["q"], [helper.make_node("Neg", ["p"], ["q"])], []
    )
    model = helper.make_model(graph(loop, many), functions=[called])

    read = graph_nodes.read(model.SerializeToString())

    assert sorted(node.type for node in read.every_node()) == sorted(
        ["Loop", "If", "Abs", "Abs", "Many", "Abs", "Abs", "Neg"]
    )
    (function,) = read.functions
    assert function[:4] == ("local", "f", [b"p"], [b"q"])
    assert [node.type for node in read.graph.nodes()] == ["Loop", "Many"]


@pytest.mark.parametrize("value", [7, -1, [3, -2, 1 << 62], []])
def test_integers_of_an_attribute_are_read(value: int | list[int]) -> None:
    node = helper.make_node("Pool", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("k", value, attr_type=None if value else 7))

    (attribute,) = only_node(node).attributes()

    assert attribute.name == "k"
    assert attribute.integers() == ([value] if isinstance(value, int) else value)


def test_packed_integers_are_read() -> None:
    """A writer of proto3 packs them, as onnx-ir's may."""
    plain = helper.make_attribute("k", [1, 300]).SerializeToString()
    packed = (
        b"\x42\x03\x01\xac\x02"
        + AttributeProto(name="k", type=AttributeProto.INTS).SerializeToString()
    )
    node = helper.make_node("Pool", ["x"], ["y"]).SerializeToString()

    for attribute in (plain, packed):
        message = node + b"\x2a" + bytes([len(attribute)]) + attribute
        wrapped = GraphProto().SerializeToString() + b"\x0a" + bytes([len(message)]) + message
        data = b"\x3a" + bytes([len(wrapped)]) + wrapped
        (read,) = graph_nodes.read(data).graph.nodes()
        assert [each.integers() for each in read.attributes()] == [[1, 300]]


def test_tensor_of_an_attribute_is_read() -> None:
    value = numpy_helper.from_array(np.array([-1]))

    (attribute,) = only_node(helper.make_node("Constant", [], ["y"], value=value)).attributes()

    assert [bytes(tensor) for tensor in attribute.tensors()] == [value.SerializeToString()]


def test_graph_in_two_parts_is_one_graph() -> None:
    first = ModelProto(graph=graph(helper.make_node("Abs", ["x"], ["a"]))).SerializeToString()
    second = ModelProto(graph=GraphProto(node=[helper.make_node("Neg", ["a"], ["y"])]))

    read = graph_nodes.read(first + second.SerializeToString())

    assert [node.type for node in read.graph.nodes()] == ["Abs", "Neg"]


def test_malformed_bytes_are_refused() -> None:
    with pytest.raises(MalformedError):
        graph_nodes.read(b"\x3a\xff")
