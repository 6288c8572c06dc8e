"""Graphs that must not be served: external weights, names that are no text, unknown operators."""

from collections.abc import Sequence

import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper

OUTSIDE = "outside.bin"
"""A file beside the repository, of the bytes that a graph would like to have as its weights."""


def external(location: str, offset: int = 0, length: int = 16) -> TensorProto:
    """A tensor whose four numbers are said to lie elsewhere."""
    tensor = TensorProto(name="slope", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def axes(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])


def graph_of(
    nodes: Sequence[NodeProto],
    initializers: Sequence[TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    """x → y with these parts; nothing is checked."""
    graph = helper.make_graph(nodes, "external", [axes("x")], [axes("y")], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    return model.SerializeToString()


MULTIPLY = helper.make_node("Mul", ["x", "slope"], ["y"])


def at_top(location: str, **bounds: int) -> bytes:
    return graph_of([MULTIPLY], [external(location, **bounds)])


def in_branch() -> bytes:
    branch = helper.make_graph([MULTIPLY], "branch", [], [axes("y")], [external(OUTSIDE)])
    condition = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return graph_of([node], [condition])


def in_function() -> bytes:
    constant = helper.make_node("Constant", [], ["slope"], value=external(OUTSIDE))
    function = helper.make_function(
        "own", "Scale", ["x"], ["y"], [constant, MULTIPLY], [helper.make_opsetid("", 21)]
    )
    return graph_of([helper.make_node("Scale", ["x"], ["y"], domain="own")], functions=[function])


def in_constant() -> bytes:
    return graph_of(
        [helper.make_node("Constant", [], ["slope"], value=external(OUTSIDE)), MULTIPLY]
    )


def in_sparse() -> bytes:
    sparse = onnx.SparseTensorProto(values=external(OUTSIDE), dims=[4])
    attribute = AttributeProto(
        name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse
    )
    constant = helper.make_node("Constant", [], ["slope"])
    constant.attribute.append(attribute)
    return graph_of([constant, MULTIPLY])


def renamed(field: str) -> bytes:
    """A graph in which one text is no UTF-8."""
    node = helper.make_node("Identity", ["x"], ["y"])
    axis = "QQQQ" if field == "axis" else "batch"
    name = "QQQQ" if field == "input" else "x"
    node.input[0] = name
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [axis, 4])
    graph = helper.make_graph([node], "names", [value], [axes("y")])
    opset = helper.make_opsetid("QQQQ" if field == "domain" else "", 21)
    opsets = [opset, helper.make_opsetid("", 21)] if field == "domain" else [opset]
    if field == "operator":
        node.op_type = "QQQQ"
        graph.node[0].op_type = "QQQQ"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString().replace(b"QQQQ", b"Q\xff\xfe\x80")


def of_operator(name: str, domain: str = "", opset: int = 21) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], domain=domain)], "g", [axes("x")], [axes("y")]
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def of_inputs(count: int) -> bytes:
    inputs = [
        helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, ["batch", 4])
        for number in range(count)
    ]
    node = helper.make_node("Identity", ["x0"], ["y"])
    graph = helper.make_graph([node], "wide", inputs, [axes("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()
