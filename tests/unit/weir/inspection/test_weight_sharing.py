import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from weir.inspection.weight_sharing import Layer, read_graph

FLOAT = onnx.TensorProto.FLOAT


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def graph(nodes: list[onnx.NodeProto], x: list[int | str], *parts: onnx.TensorProto) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, x)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        list(parts),
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(made, opset_imports=opset, ir_version=10).SerializeToString()


def test_the_first_layer_of_lenet_has_the_papers_connections() -> None:
    conv = helper.make_node("Conv", ["x", "c1.weight", "c1.bias"], ["y"])
    model = graph(
        [conv], ["batch", 1, 32, 32], weights("c1.weight", 6, 1, 5, 5), weights("c1.bias", 6)
    )

    (layer,) = read_graph(model, "batch").layers

    # LeCun et al. (1998), section II.B: "156 trainable parameters, and 122,304 connections".
    assert (layer.parameters, layer.connections) == (156, 122_304)
    assert layer == Layer("c1", "Conv", 156, (1, 6, 28, 28), 784)


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_a_dense_layer_uses_each_parameter_once(kind: str) -> None:
    model = graph([helper.make_node(kind, ["x", "w"], ["y"])], ["batch", 3], weights("w", 3, 4))

    (layer,) = read_graph(model, "batch").layers

    assert (layer.parameters, layer.positions, layer.connections) == (12, 1, 12)


def test_a_dense_layer_over_time_uses_them_at_each_step() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])

    (fixed,) = read_graph(graph([node], ["batch", 7, 3], weights("w", 3, 4)), "batch").layers
    (free,) = read_graph(graph([node], ["batch", "time", 3], weights("w", 3, 4)), "batch").layers

    assert fixed.connections == 7 * 12
    assert free.connections is None


@pytest.mark.parametrize(("steps", "positions"), [(9, 9), ("time", None)])
def test_a_recurrent_layer_uses_them_at_each_step(steps: int | str, positions: int | None) -> None:
    node = helper.make_node("GRU", ["x", "w", "r", "b"], ["y"], hidden_size=4)
    parts = (weights("w", 1, 12, 3), weights("r", 1, 12, 4), weights("b", 1, 24))

    (layer,) = read_graph(graph([node], [steps, "batch", 3], *parts), "batch").layers

    assert (layer.parameters, layer.positions) == (36 + 48 + 24, positions)


def test_numbers_outside_layers_are_constants() -> None:
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "w"], ["y"]),
    ]

    read = read_graph(graph(nodes, ["batch", 3], weights("mean", 3), weights("w", 3, 4)), "batch")

    assert read.constants == 3 and len(read.layers) == 1
    assert [(t.name, t.dtype, t.shape) for t in read.inputs] == [("x", "FLOAT", ("batch", 3))]
    assert [t.name for t in read.outputs] == ["y"]


def test_weights_used_twice_are_learnt_once() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]

    read = read_graph(graph(nodes, ["batch", 3], weights("w", 3, 3)), "batch")

    assert read.constants == 0
    assert read.parameters == 9
    assert read.connections == 18


def test_a_layer_unrolled_over_time_is_one_that_is_used_at_each_step() -> None:
    nodes = []
    for step in range(12):
        nodes += [
            helper.make_node("Gemm", ["x", "w", "b"], [f"h{step}"]),
            helper.make_node("Gemm", [f"h{step}", "v"], [f"y{step}" if step else "y"]),
        ]
    parts = (weights("w", 3, 4), weights("b", 4), weights("v", 4, 1))

    read = read_graph(graph(nodes, ["batch", 3], *parts), "batch")

    assert read.layers == (
        Layer("w", "Gemm", 16, (1, 4), 12),
        Layer("v", "Gemm", 4, (1, 1), 12),
    )
    assert read.connections == 12 * (16 + 4)


def test_weights_shared_by_two_layers_are_in_both() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "c"], ["y"]),
    ]
    parts = (weights("w", 3, 3), weights("b", 3), weights("c", 3))

    read = read_graph(graph(nodes, ["batch", 3], *parts), "batch")

    assert [layer.positions for layer in read.layers] == [1, 1]
    assert read.parameters == 9 + 3 + 3


def test_nodes_outside_layers_are_told_by_operator() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "c"], ["y"]),
    ]

    read = read_graph(graph(nodes, [3, 3], weights("w", 3, 3)), None)

    assert len(read.layers) == 1
    assert read.uncounted == {"Relu": 2, "MatMul": 1}
