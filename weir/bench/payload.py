"""The request of a load: the user's arrays, and random arrays for the other inputs."""

from collections.abc import Mapping, Sequence

import numpy as np

from weir.client.errors import UsageError
from weir.client.results import Array, ModelMetadata, TensorMetadata
from weir.protocol.datatypes import DATATYPES


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Dimensions by input name from `name:28,28,1`; UsageError for another form."""
    shapes = {}
    for text in texts:
        name, _, dimensions = text.rpartition(":")
        try:
            shapes[name] = tuple(int(size) for size in dimensions.split(","))
        except ValueError:
            shapes[name] = ()
        if not name or not shapes[name] or min(shapes[name]) < 1:
            raise UsageError(f"expected a shape such as NAME:28,28,1, got {text!r}")
    return shapes


def complete(
    given: Mapping[str, Array],
    metadata: ModelMetadata,
    *,
    rows: int,
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
) -> dict[str, Array]:
    """The given arrays, and random ones for the other inputs.

    `rows` is the size of a variable first axis; given arrays are not repeated to it. `shapes` holds
    dimensions of inputs with other variable axes, with or without the first axis.
    """
    names = {tensor.name for tensor in metadata.inputs}
    if unknown := sorted((set(given) | set(shapes)) - names):
        raise UsageError(f"{metadata.name} has no input {unknown[0]!r}")
    values = np.random.default_rng(seed)
    return {
        tensor.name: given[tensor.name]
        if tensor.name in given
        else _random_array(tensor, _shape(tensor, rows, shapes.get(tensor.name)), values)
        for tensor in metadata.inputs
    }


def row_count(arrays: Mapping[str, Array], metadata: ModelMetadata) -> int:
    """Rows of a request: the size of a variable first axis; 1 without one."""
    for tensor in metadata.inputs:
        if tensor.shape[:1] == (-1,) and arrays[tensor.name].ndim:
            return int(arrays[tensor.name].shape[0])
    return 1


def _shape(tensor: TensorMetadata, rows: int, given: tuple[int, ...] | None) -> tuple[int, ...]:
    if given is not None and len(given) == len(tensor.shape):
        return given
    first = (rows,) if tensor.shape[:1] == (-1,) else tensor.shape[:1]
    rest = tensor.shape[1:] if given is None else given
    if -1 in rest or len(rest) != len(tensor.shape[1:]):
        raise UsageError(
            f"input {tensor.name!r} has shape {list(tensor.shape)}: give its dimensions as "
            f"--shape {tensor.name}:{','.join('N' for _ in tensor.shape[1:])}"
        )
    return first + rest


def _random_array(
    tensor: TensorMetadata, shape: tuple[int, ...], values: np.random.Generator
) -> Array:
    """Random bytes and floats; ones for wider integers, which are mostly ids."""
    dtype = DATATYPES[tensor.datatype].dtype
    if tensor.datatype == "BYTES":
        return np.full(shape, b"weir", object)
    if dtype.itemsize == 1:
        return values.integers(0, 2 if dtype.kind == "b" else 128, shape).astype(dtype)
    if dtype.kind == "f":
        return values.random(shape).astype(dtype)
    return np.ones(shape, dtype)
