"""Views of a network, as the page shows them: its layers, its first kernels, its feature maps.

Each is a JSON object of bounded size. Kernels and maps are bytes in base64, with the range that
they stand for.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.bundle.external_data import ResolvedGraph
from weir.inspection.errors import InspectionError
from weir.inspection.feature_maps import BlockMaps, feature_maps, read_picture
from weir.inspection.kernels import first_convolution
from weir.inspection.weight_sharing import Graph, Layer, read_graph

Array = NDArray[Any]
View = dict[str, Any]

_MOST_LAYERS, _MOST_OPERATORS = 400, 24
_MOST_KERNELS, _MOST_KERNEL_VALUES = 64, 1 << 16
_MOST_BLOCKS, _MOST_MAPS, _MOST_SIDE = 24, 16, 64
_MOST_NAME = 200


def network(graphs: Mapping[str, ResolvedGraph], contract: Contract | None) -> View:
    """The layers of each graph, for one row, with totals that are the sums of what is shown."""
    axis = "batch" if contract is None else contract.batch_axis
    sharing = contract.sharing if contract else None
    picture = contract.preprocessing if contract else None
    return {
        "graphs": [_graph(name, read_graph(graph.model, axis)) for name, graph in graphs.items()],
        # Counted on the PyTorch module, with pooling and normalisation.
        "trained": sharing.model_dump() if sharing else None,
        "picture": picture.model_dump(include={"height", "width", "channels"}) if picture else None,
    }


def _graph(name: str, graph: Graph) -> View:
    shown, rest = graph.layers[:_MOST_LAYERS], graph.layers[_MOST_LAYERS:]
    layers = [_layer(layer) for layer in shown]
    if rest:
        layers.append(_total(rest) | {"name": f"{len(rest)} more layers", "kind": "", "output": []})
    uncounted = sorted(graph.uncounted.items(), key=lambda each: (-each[1], each[0]))
    total = _total(graph.layers)
    return {
        "name": name,
        "layers": layers,
        **total,
        # A parameter that two layers use stands in both.
        "repeated": total["parameters"] - graph.parameters,
        "constants": graph.constants,
        "uncounted": dict(uncounted[:_MOST_OPERATORS]),
        "inputs": [_tensor(each.name, each.shape) for each in graph.inputs],
        "outputs": [_tensor(each.name, each.shape) for each in graph.outputs],
    }


def _layer(layer: Layer) -> View:
    return {
        "name": layer.name[:_MOST_NAME],
        "kind": layer.kind,
        "output": list(layer.output[1:]),
        "parameters": layer.parameters,
        "connections": layer.connections,
        "sharing": layer.positions,
    }


def _total(layers: Sequence[Layer]) -> View:
    parameters = sum(layer.parameters for layer in layers)
    connections = _sum(layer.connections for layer in layers)
    is_known = connections is not None and parameters > 0
    return {
        "parameters": parameters,
        "connections": connections,
        "sharing": round(connections / parameters, 1) if is_known and connections else None,
    }


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _tensor(name: str, shape: Sequence[int | str] | None) -> View:
    return {"name": name[:_MOST_NAME], "shape": None if shape is None else list(shape)}


def kernels(graphs: Mapping[str, ResolvedGraph]) -> View:
    """The kernels of the first convolution: bytes from 0, the lowest, over 127.5 to 255.

    127.5 stands for zero, and 255 for the largest number without its sign.
    """
    found = None
    for graph in graphs.values():
        found = found or first_convolution(graph)
    if found is None:
        return {"convolution": None}
    weights = np.nan_to_num(found.weights)
    outputs, inputs, height, width = weights.shape
    shown_inputs = min(inputs, max(1, _MOST_KERNEL_VALUES // (height * width)))
    size = shown_inputs * height * width
    shown = weights[: min(_MOST_KERNELS, max(1, _MOST_KERNEL_VALUES // size)), :shown_inputs]
    if shown.size > _MOST_KERNEL_VALUES:
        raise InspectionError(f"kernels of {height} x {width} are too large to show")
    largest = float(np.abs(weights).max(initial=0))
    scaled = (shown / (largest or 1) + 1) * 127.5
    return {
        "convolution": {
            "layer": found.layer[:_MOST_NAME],
            "shape": [outputs, inputs, height, width],
            "shown": list(shown.shape[:2]),
            "minimum": float(weights.min(initial=0)),
            "maximum": float(weights.max(initial=0)),
            "largest": largest,
            "values": _encode(scaled),
        }
    }


def maps(graph: ResolvedGraph, contract: Contract | None, picture: bytes) -> View:
    """The feature maps of a picture after each block: bytes from a map's lowest to its highest."""
    if contract is None or contract.preprocessing is None:
        raise InspectionError("the model takes no pictures: its bundle has no preprocessing")
    inputs = read_picture(picture, contract.preprocessing)
    pixels = inputs[contract.preprocessing.input][0]
    found = feature_maps(graph, inputs, _MOST_BLOCKS)
    return {
        "picture": {"shape": list(pixels.shape), "values": _encode(pixels)},
        "blocks": [_block(each) for each in found],
    }


def _block(block: BlockMaps) -> View:
    operators = block.block.operators
    maps = np.nan_to_num(block.maps[:_MOST_MAPS])
    low, high = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    drawn = _shrink(_shrink(maps, 1), 2)
    span = np.where(high > low, high - low, 1)
    scaled = (drawn - low[:, None, None]) / span[:, None, None] * 255
    return {
        "layer": block.block.layer[:_MOST_NAME],
        "operator": operators[-1],
        "operators": list(operators[:_MOST_OPERATORS]),
        "shape": list(block.maps.shape),
        "shown": list(drawn.shape),
        "ranges": [list(pair) for pair in zip(low.tolist(), high.tolist(), strict=True)],
        "values": _encode(scaled),
    }


def _shrink(maps: Array, axis: int) -> Array:
    """Means of neighbours along an axis, so that at most `_MOST_SIDE` are left."""
    size = maps.shape[axis]
    step = math.ceil(size / _MOST_SIDE)
    if step == 1:
        return maps
    edges = np.arange(0, size, step)
    counts = np.diff([*edges, size])
    shape = [1] * maps.ndim
    shape[axis] = -1
    means: Array = np.add.reduceat(maps, edges, axis=axis) / counts.reshape(shape)
    return means


def _encode(values: Array) -> str:
    return base64.b64encode(np.rint(values).clip(0, 255).astype(np.uint8).tobytes()).decode("ascii")
