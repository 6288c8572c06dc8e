"""Columns: Arrow columns → arrays of a model's inputs, and its outputs → Arrow columns. Pure.

Rules:
- A cell is a row of a tensor, without the batch axis: nested lists of its shape, one flat list of
  as many values, or their raw bytes, in little-endian order.
- Numbers become those of the input's datatype. A float takes every number, an integer only numbers
  that it can hold.
- Whole columns are viewed or cast at once where every cell has the right shape; otherwise each cell
  is read by itself, and one that does not fit is the error of its row.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
from numpy.typing import NDArray

from weir.client.errors import UsageError
from weir.protocol.datatypes import DATATYPES
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]


def is_list(kind: pa.DataType) -> bool:
    """Whether a cell of the type is a list."""
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a cell of the type is a text."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a cell of the type is a string of bytes."""
    return bool(
        kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind)
    )


def value_type(datatype: str) -> pa.DataType:
    """The Arrow type of a value of one of the protocol's datatypes."""
    if datatype == "BYTES":
        return pa.string()
    if datatype == "BF16":
        raise UsageError("datatype BF16: expected one that a Parquet file can hold")
    return pa.from_numpy_dtype(DATATYPES[datatype].dtype)


def cell_type(spec: TensorSpec, own_axes: Sequence[object]) -> pa.DataType:
    """The type of a row of a tensor: a list of fixed size for each axis of fixed size.

    Args:
        own_axes: those of a row, without the batch axis.
    """
    kind = value_type(spec.datatype)
    for axis in reversed(own_axes):
        kind = pa.list_(kind, axis) if isinstance(axis, int) else pa.list_(kind)
    return kind


def check_column(name: str, column: str, spec: TensorSpec, kind: pa.DataType) -> None:
    """UsageError if no cell of the type can be a row of the input."""
    wanted = DATATYPES[spec.datatype].dtype
    inner = kind
    while is_list(inner):
        inner = inner.value_type
    fits = is_text(inner) if spec.datatype == "BYTES" else is_bytes(kind) or _takes(wanted, inner)
    if not fits:
        raise UsageError(
            f"input {name!r}: expected values of {spec.datatype}, column {column!r} has {inner}"
        )


def _takes(wanted: np.dtype[Any], kind: pa.DataType) -> bool:
    if kinds.is_boolean(kind):
        return wanted.kind == "b"
    if kinds.is_integer(kind):
        return wanted.kind in "iuf"
    return kinds.is_floating(kind) and wanted.kind == "f"


def block(column: pa.Array, spec: TensorSpec, shape: Sequence[int]) -> Array | None:
    """All cells as one array (rows, *shape); None if a cell is null or has another shape.

    The array views the column's memory where the types are equal.
    """
    if column.null_count or spec.datatype == "BYTES":
        return None
    values = math.prod(shape)
    rows = len(column)
    dtype = DATATYPES[spec.datatype].dtype
    if is_bytes(column.type):
        flat = _raw(column, values * dtype.itemsize, dtype)
    else:
        flat = _cast(_flat(column, rows, values), dtype)
    return None if flat is None else flat.reshape(rows, *shape)


def _raw(column: pa.Array, width: int, dtype: np.dtype[Any]) -> Array | None:
    """The values of cells of raw bytes, each `width` bytes long."""
    start, rows = column.offset, len(column)
    if kinds.is_fixed_size_binary(column.type):
        if column.type.byte_width != width:
            return None
        first = start * width
        data = column.buffers()[1]
    else:
        size = np.int64 if kinds.is_large_binary(column.type) else np.int32
        offsets = np.frombuffer(column.buffers()[1], size)[start : start + rows + 1]
        if (np.diff(offsets) != width).any():
            return None
        first = int(offsets[0])
        data = column.buffers()[2]
    if not rows or not width:
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype.newbyteorder("<"), rows * width // dtype.itemsize, first)


def _flat(column: pa.Array, rows: int, values: int) -> Array | None:
    """The values of nested or flat lists that all have as many; None if some have not."""
    while is_list(column.type):
        if column.null_count:
            return None
        if not kinds.is_fixed_size_list(column.type):
            sizes = column.value_lengths().to_numpy(zero_copy_only=False)
            if len(sizes) and (sizes != sizes[0]).any():
                return None
        column = column.flatten()
    if column.null_count or len(column) != rows * values:
        return None
    flat: Array = column.to_numpy(zero_copy_only=False)
    return flat


def _cast(values: Array | None, dtype: np.dtype[Any]) -> Array | None:
    """Values in another datatype; None if one does not fit."""
    if values is None or values.dtype == dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, values):
        return None
    return cast


def cell(column: pa.Array, position: int, spec: TensorSpec, axes: Sequence[object]) -> Array:
    """One cell as an array (1, *axes).

    Raises:
        ValueError: it does not fit; the message says why.
    """
    scalar = column[position]
    if not scalar.is_valid:
        raise ValueError("expected a value, got null")
    dtype = DATATYPES[spec.datatype].dtype
    value = scalar.as_py()
    fixed = [axis for axis in axes if isinstance(axis, int)]
    if isinstance(value, bytes):
        if len(fixed) < len(axes) or len(value) != math.prod(fixed) * dtype.itemsize:
            size = math.prod(fixed) * dtype.itemsize
            expected = "lists" if len(fixed) < len(axes) else f"{size} bytes"
            raise ValueError(f"expected {expected}, got {len(value)} bytes")
        array = np.frombuffer(value, dtype.newbyteorder("<"))
    else:
        array = _values(value, dtype)
    if array.ndim != len(axes) and len(fixed) == len(axes) and array.size == math.prod(fixed):
        array = array.reshape(fixed)
    if array.ndim != len(axes) or any(
        isinstance(axis, int) and axis != size for axis, size in zip(axes, array.shape, strict=True)
    ):
        wanted = [axis if isinstance(axis, int) else "any" for axis in axes]
        raise ValueError(f"expected the shape {wanted}, got {list(array.shape)}")
    return array[None]


def _values(value: object, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "O":
        texts = np.array(value, dtype=object)
        if not all(isinstance(text, str) for text in texts.reshape(-1).tolist()):
            raise ValueError("expected texts, got others")
        encoded: Array = np.vectorize(str.encode, otypes=[object])(texts)
        return encoded
    try:
        given = np.array(value)
    except ValueError:
        raise ValueError("expected lists of equal lengths, got others") from None
    if given.dtype.kind not in "biuf" and given.size:
        raise ValueError("expected numbers, got others")
    cast = _cast(given, dtype)
    if cast is None:
        raise ValueError(f"expected values of {dtype}, got one that it cannot hold")
    return cast


def to_column(array: Array, kind: pa.DataType) -> pa.Array:
    """An output's rows (rows, …) as a column of the type."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == object:
        column = pa.array([_as_text(value) for value in flat.tolist()], pa.string())
    else:
        column = pa.array(flat)
    return _nest(column, array.shape, kind)


def _nest(column: pa.Array, shape: Sequence[int], kind: pa.DataType) -> pa.Array:
    """Lists of the shape around flat values, (rows, …)."""
    levels: list[pa.DataType] = []
    while is_list(kind):
        levels.append(kind)
        kind = kind.value_type
    for depth in range(len(levels), 0, -1):
        size = shape[depth]
        if kinds.is_fixed_size_list(levels[depth - 1]):
            column = pa.FixedSizeListArray.from_arrays(column, size)
        else:
            count = math.prod(shape[:depth])
            offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
            column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def lists_of(values: pa.Array, lengths: NDArray[np.intp]) -> pa.Array:
    """A list for each row, of so many of the values."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def labels_of(indices: Array, labels: pa.Array) -> pa.Array:
    """The label of each class; its number where there is none."""
    most = int(indices.max(initial=-1))
    if most >= len(labels):
        numbers = map(str, range(len(labels), most + 1))
        labels = pa.concat_arrays([labels, pa.array(numbers, pa.string())])
    return pc.take(labels, pa.array(indices))


def _as_text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
