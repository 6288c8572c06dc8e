"""Arrays from command-line arguments: `name=file.npy`, or `name=` and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from weir.client.errors import UsageError
from weir.client.results import Array, ModelMetadata, TensorMetadata
from weir.protocol.datatypes import DATATYPES


def parse_inputs(texts: Sequence[str], metadata: ModelMetadata) -> dict[str, Array]:
    """Arrays by input name; the name may be left out for a model of one input.

    JSON values get the input's datatype; a file keeps its own.
    """
    tensors = {tensor.name: tensor for tensor in metadata.inputs}
    arrays: dict[str, Array] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in tensors and len(tensors) == 1:
            name, value = next(iter(tensors)), text
        if name not in tensors:
            raise UsageError(f"{metadata.name}: expected NAME=… of {', '.join(tensors)}: {text!r}")
        if name in arrays:
            raise UsageError(f"input {name!r} is given twice")
        arrays[name] = _load(value) if value.endswith(".npy") else _read(value, tensors[name])
    return arrays


def _load(path: str) -> Array:
    try:
        array: Array = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return array


def _read(text: str, tensor: TensorMetadata) -> Array:
    try:
        given = np.array(json.loads(text))
    except ValueError as error:
        raise UsageError(
            f"input {tensor.name!r}: expected a .npy file or a JSON array: {error}"
        ) from error
    dtype = DATATYPES[tensor.datatype].dtype
    is_text = given.dtype.kind == "U"
    if is_text != (tensor.datatype == "BYTES") or given.dtype == object:
        raise UsageError(f"input {tensor.name!r}: expected {tensor.datatype}, got {text!r}")
    with np.errstate(invalid="ignore", over="ignore"):
        array = given.astype(dtype)
    # A conversion must not change a number: 1.5 and 300 are no UINT8.
    if dtype.kind in "iub" and not np.array_equal(array, given):
        raise UsageError(f"input {tensor.name!r}: {text} does not fit {tensor.datatype}")
    return array
