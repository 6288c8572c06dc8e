"""Layer of a node: the module of a network that it belongs to, read from names in the graph.

A parameter is called after its module, as `network.c3.weight` by torch; a node has its module in
its name, as `/features/conv1/Conv` by torch's older exporter, or not at all.
"""

from collections.abc import Iterator, Mapping

from weir.bundle.graph_nodes import Graph, Node, text

# Parts of a convolution that ONNX Runtime fuses with it: the fused node is called after them.
_FUSED_AFTER = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "BatchNormalization")
_MOST_STEPS = 3


def layers_of(original: Graph, optimised: Graph) -> list[str]:
    """The layer of each node of the optimised graph; empty if the names do not say it."""
    constants = set(original.initializers())
    parameters = {name: text(name) for name in constants if b"." in name}
    producers: dict[bytes, Node] = {}
    by_name: dict[str, Node] = {}
    for node in original.nodes():
        by_name[node.name] = node
        producers |= dict.fromkeys(node.outputs, node)
        # Nodes that read constants alone are folded into constants.
        if constants.issuperset(node.inputs):
            constants.update(node.outputs)
            own = [parameters[name] for name in node.inputs if name in parameters]
            parameters |= dict.fromkeys(node.outputs, own[0]) if own else {}
    by_name |= {text(output): node for output, node in producers.items()}
    return [_layer(node, by_name, producers, parameters) for node in optimised.nodes()]


def _layer(
    node: Node,
    by_name: Mapping[str, Node],
    producers: Mapping[bytes, Node],
    parameters: Mapping[bytes, str],
) -> str:
    name = node.name.removeprefix("fused ").removesuffix("_nchwc")
    original = by_name.get(name)
    # Fusion drops or renames parameters; the original node still has them.
    for candidate in (node, *_with_fused(original, producers)):
        for tensor in candidate.inputs:
            if tensor in parameters:
                return parameters[tensor].rpartition(".")[0]
    return original.name.strip("/").rpartition("/")[0] if original else ""


def _with_fused(node: Node | None, producers: Mapping[bytes, Node]) -> Iterator[Node]:
    """A node, and the nodes before it that ONNX Runtime may have fused with it."""
    for _ in range(_MOST_STEPS):
        if node is None:
            return
        yield node
        if node.type not in _FUSED_AFTER:
            return
        node = producers.get(node.inputs[0])
