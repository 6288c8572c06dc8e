import numpy as np
import onnx

from tests.helpers import profiled_graphs
from weir.bundle import graph_nodes
from weir.profile.layers import layers_of


def named(text: str, **names: str) -> graph_nodes.Graph:
    """A graph, whose nodes are called by their outputs; constants have other names than in it."""
    weights = {name: np.ones((4, 4), np.float32) for name in names}
    model = onnx.load_model_from_string(profiled_graphs.graph(text, weights))
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
        node.input[:] = [names.get(each, each) for each in node.input]
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    return graph_nodes.read(model.SerializeToString()).graph


def test_a_layer_is_the_module_of_its_parameters() -> None:
    graph = named(
        """g (float[b, 4] x) => (float[b, 4] y) { a = Gemm(x, w)  y = Neg(a) }""",
        w="net.hidden.weight",
    )

    assert layers_of(graph, graph) == ["net.hidden", ""]


def test_a_fused_node_has_the_layer_of_its_parts() -> None:
    original = named(
        """g (float[b, 4] x) => (float[b, 4] y) { a = Gemm(x, w)  y = Relu(a) }""",
        w="net.hidden.weight",
    )
    # A convolution in blocks of channels is called after the activation, with other weights.
    fused = onnx.load_model_from_string(
        profiled_graphs.graph(
            "g (float[b, 4] x) => (float[b, 4] y) { y = Gemm(x, reorder) }",
            {"reorder": np.ones((4, 4), np.float32)},
        )
    )
    fused.graph.node[0].name = "y_nchwc"
    optimised = graph_nodes.read(fused.SerializeToString()).graph

    assert layers_of(original, optimised) == ["net.hidden"]


def test_a_folded_weight_has_the_layer_of_the_parameter() -> None:
    original = named(
        """g (float[b, 4] x) => (float[b, 4] y) {
            turned = Transpose(w)
            y = MatMul(x, turned)
        }""",
        w="net.out.weight",
    )

    assert layers_of(original, original)[1] == "net.out"


def test_a_name_with_slashes_holds_the_layer() -> None:
    model = onnx.load_model_from_string(
        profiled_graphs.graph("g (float[b, 4] x) => (float[b, 4] y) { y = Relu(x) }")
    )
    model.graph.node[0].name = "/features/conv1/Relu"
    graph = graph_nodes.read(model.SerializeToString()).graph

    assert layers_of(graph, graph) == ["features/conv1"]
