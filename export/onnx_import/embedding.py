"""Value ranges that follow from a graph: ids that choose a row of a table of weights."""

from collections.abc import Iterable

import onnx

# These keep the values of their first input.
_SAME_VALUES = frozenset(
    ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)


def table_sizes(graph: onnx.GraphProto, inputs: Iterable[str]) -> dict[str, int]:
    """For each input whose values choose rows of a table of weights, the table's number of rows."""
    origins = {name: name for name in inputs}
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    sizes: dict[str, int] = {}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in _SAME_VALUES and node.input[0] in origins:
            origins[node.output[0]] = origins[node.input[0]]
        if node.op_type == "Gather" and node.input[1] in origins and node.input[0] in weights:
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            rows = weights[node.input[0]][axis]
            name = origins[node.input[1]]
            sizes[name] = min(rows, sizes.get(name, rows))
    return sizes
