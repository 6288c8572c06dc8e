"""Generated rows: inputs of a plain model for the batch axis proof.

Rules:
- Rows are drawn with fixed seeds, so each load of a graph gets the same decision.
- All free axes of a row have one size.
- No integer is the least of its type, whose quotient by -1 ends the process.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.protocol.datatypes import DATATYPES
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]

Row = Mapping[str, Array]
# Sizes to try for a free axis besides the batch axis: a sequence, a picture, a large picture, and
# sizes that few graphs take.
_SIZES = (8, 32, 256, 1, 2, 3)
# Least and greatest integer, and the greatest UINT8, which is often a pixel. They are small, since
# an id beyond a vocabulary is an error at best.
_INTEGERS = ((0, 3, 255), (0, 1, 1), (1, 2, 2))
# Of a row beside which no other may change: a pixel, a number of words, and beyond. No value is the
# least of its type, whose quotient by -1 ends the process.
_LARGE_INTEGERS = (200, 1000, 100_000, -1000)
# Sizes of a free axis of which a few rows together may have the size that a graph demands.
_FEW = (1, 2, 3, 4)
# Near the greatest finite number; a sum of a few is infinite in FP16 only.
_GREATEST = {"FP64": 1e30, "FP32": 1e30, "FP16": 6e4, "BF16": 1e30}
# Limit of the inputs of a row: a graph may name any size.
_MAX_ROW_BYTES = 1 << 26


def candidates(inputs: Sequence[TensorSpec]) -> Iterator[list[Row]]:
    """Rows to try: two of different content, one of zeros; by axis size, then by integer range."""
    for size in _SIZES if has_free_axes(inputs) else (1,):
        shapes = _row_shapes(inputs, size)
        if _bytes_of(inputs, shapes) > _MAX_ROW_BYTES:
            continue
        for integers in _INTEGERS:
            yield _rows_of(inputs, shapes, integers)


def of_few_entries(inputs: Sequence[TensorSpec]) -> Iterator[list[Row]]:
    """Two rows of different content for each of a few small sizes of free axes."""
    for size in _FEW:
        shapes = _row_shapes(inputs, size)
        if _bytes_of(inputs, shapes) <= _MAX_ROW_BYTES:
            yield _rows_of(inputs, shapes, _INTEGERS[1])[:2]


def extremes(inputs: Sequence[TensorSpec], row: Row) -> Iterator[Row]:
    """The row with NaN, infinity, and large numbers of either sign, for its floating-point values.

    Then with large integers; a graph may refuse those. The large numbers differ, as a row of equal
    ones is nothing less its mean.
    """
    generator = np.random.default_rng(1)
    if any(spec.datatype in _GREATEST for spec in inputs):
        for sign in (math.nan, math.inf, 1.0, -1.0):
            yield {
                spec.name: _floats(
                    spec, sign * most * generator.uniform(0.1, 1, row[spec.name].shape)
                )
                if (most := _GREATEST.get(spec.datatype)) is not None
                else row[spec.name]
                for spec in inputs
            }
    if any(map(_is_countable, inputs)):
        for number in _LARGE_INTEGERS:
            yield _counted(inputs, row, number)


def moderate(inputs: Sequence[TensorSpec], rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Pairs of rows that do not exceed thresholds that their neighbours exceed.

    Their numbers are between 0.01 and 0.5 and between 0.5 and 3, the second pair's are negative.
    Integers are 0 and 1, or as they are. Then there are rows whose integers are all 1 or all 0, and
    their booleans.
    """
    generator = np.random.default_rng(2)

    def values(spec: TensorSpec, array: Array, sign: int, bounds: tuple[float, float]) -> Array:
        if spec.datatype in _GREATEST:
            return _floats(spec, sign * generator.uniform(*bounds, array.shape))
        return array % 2 if sign > 0 and array.dtype.kind in "iu" else array

    pairs: list[tuple[Row, Row]] = []
    for row, sign in zip(rows, (1, -1), strict=True):
        small, large = (
            {spec.name: values(spec, row[spec.name], sign, bounds) for spec in inputs}
            for bounds in ((0.01, 0.5), (0.5, 3.0))
        )
        pairs.append((small, large))
    yield from pairs
    if any(map(_is_countable, inputs)):
        for pair, number in zip(pairs, (1, 0), strict=True):
            counted = _counted(inputs, pair[0], number)
            yield counted, counted


def has_free_axes(inputs: Sequence[TensorSpec]) -> bool:
    """Whether a row may have several sizes."""
    return any(not isinstance(axis, int) for spec in inputs for axis in spec.axes[1:])


def _is_countable(spec: TensorSpec) -> bool:
    return DATATYPES[spec.datatype].dtype.kind in "iub" and spec.datatype != "BF16"


def _counted(inputs: Sequence[TensorSpec], row: Row, number: int) -> Row:
    """The row with one number, or the nearest there is, in place of its integers and booleans."""
    counted = dict(row)
    for spec in filter(_is_countable, inputs):
        array = row[spec.name]
        if array.dtype.kind == "b":
            counted[spec.name] = np.full_like(array, number != 0)
        else:
            limits = np.iinfo(array.dtype)
            least = limits.min if limits.min == 0 else limits.min + 1
            counted[spec.name] = np.full_like(array, min(max(number, least), limits.max))
    return counted


def _floats(spec: TensorSpec, values: Array) -> Array:
    if spec.datatype == "BF16":
        return _bf16(values.astype(np.float32))
    return values.astype(DATATYPES[spec.datatype].dtype)


def _row_shapes(inputs: Sequence[TensorSpec], size: int) -> dict[str, tuple[int, ...]]:
    """The shape of each input of one row whose free axes have this size."""
    return {
        spec.name: (1, *(axis if isinstance(axis, int) else size for axis in spec.axes[1:]))
        for spec in inputs
    }


def _bytes_of(inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(
        math.prod(shapes[spec.name]) * DATATYPES[spec.datatype].dtype.itemsize for spec in inputs
    )


def _rows_of(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]],
    integers: tuple[int, int, int],
) -> list[Row]:
    """Two rows of different content, and one of zeros."""
    least, most, most_byte = integers
    generator = np.random.default_rng(0)
    first, second, zeros = {}, {}, {}
    for spec in inputs:
        greatest = most_byte if spec.datatype == "UINT8" else most
        first[spec.name], second[spec.name], zeros[spec.name] = _values(
            spec.datatype, shapes[spec.name], least, greatest, generator
        )
    return [first, second, zeros]


def _values(
    datatype: str, shape: tuple[int, ...], least: int, most: int, generator: np.random.Generator
) -> tuple[Array, Array, Array]:
    """One input's values in two rows that differ everywhere, and in a row of zeros."""
    dtype = DATATYPES[datatype].dtype
    if datatype == "BF16":
        numbers = generator.standard_normal(shape, np.float32), generator.normal(0, 10, shape)
        first, second = (_bf16(values.astype(np.float32)) for values in numbers)
        return first, second, np.zeros(shape, dtype)
    if dtype.kind == "f":
        first = generator.standard_normal(shape).astype(dtype)
        return first, generator.normal(0, 10, shape).astype(dtype), np.zeros(shape, dtype)
    if dtype.kind == "b":
        first = generator.integers(0, 2, shape).astype(dtype)
        return first, ~first, np.zeros(shape, dtype)
    integers = generator.integers(least, most + 1, shape)
    others = least + most - integers
    if dtype.kind == "O":
        texts = [values.astype(str).astype(object) for values in (integers, others)]
        return texts[0], texts[1], np.full(shape, "", dtype)
    return integers.astype(dtype), others.astype(dtype), np.zeros(shape, dtype)


def _bf16(values: NDArray[np.float32]) -> Array:
    """The upper half of each number's bits."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)
