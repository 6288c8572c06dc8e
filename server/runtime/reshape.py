"""Reshape: a tensor's shape in requests, and in the graph (`TensorSpec.reshape`). Pure.

Axes of any size are matched in their order, the batch axis among them: it comes first in both
shapes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.escaping import short_repr
from weir.protocol.datatypes import DATATYPES
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]


class ShapeError(ValueError):
    """An output of the graph has not the shape that is reshaped."""


def to_graph(specs: Mapping[str, TensorSpec], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs of a request in the shapes of the graph; they have those of their specs."""
    return {
        name: _reshaped(array, specs[name].wire_shape(), specs[name].reshape or ())
        if name in specs
        else array
        for name, array in inputs.items()
    }


def to_request(specs: Mapping[str, TensorSpec], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of the graph in the shapes that requests have."""
    reshaped = dict(outputs)
    for name, spec in specs.items():
        # ONNX Runtime may give a scalar as one of Python's.
        array = np.asarray(outputs[name], DATATYPES[spec.datatype].dtype)
        own = spec.reshape or ()
        if array.ndim != len(own) or any(
            size not in (-1, actual) for size, actual in zip(own, array.shape, strict=True)
        ):
            raise ShapeError(
                f"output {short_repr(name)}: expected shape {list(own)} of the graph, "
                f"got {list(array.shape)}"
            )
        reshaped[name] = _reshaped(array, own, spec.wire_shape())
    return reshaped


def _reshaped(array: Array, own: Iterable[int], other: Iterable[int]) -> Array:
    """The array in another shape; -1 in it is the size of the next -1 of its own shape."""
    free = iter([size for size, axis in zip(array.shape, own, strict=True) if axis == -1])
    return array.reshape([next(free) if axis == -1 else axis for axis in other])
