"""Requests → one batch → rows again. Pure: arrays in, arrays out.

Rows lie on axis 0 of every tensor of a model that has rows (`signature`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def join(requests: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The tensors of several requests, one below the other; of one request, as they are."""
    if len(requests) == 1:
        return dict(requests[0])
    return {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}


def split(outputs: Mapping[str, Array], rows: Sequence[int]) -> list[dict[str, Array]]:
    """Each request's part of a batch's outputs, as views.

    Args:
        outputs: by name, each (sum of `rows`, …).
        rows: of each request, in the order they were joined.

    Raises:
        ValueError: an output has another number of rows, so whose they are is unknown.
    """
    expected = sum(rows)
    for name, array in outputs.items():
        if array.shape[:1] != (expected,):
            got = len(array) if array.ndim else "none"
            raise ValueError(f"output {name!r}: expected {expected} rows, got {got}")
    parts = []
    start = 0
    for count in rows:
        end = start + count
        parts.append({name: array[start:end] for name, array in outputs.items()})
        start = end
    return parts
