"""The protocol's datatypes beside numpy's and ONNX's: one table.

BYTES is an object array of `bytes`. BF16, which numpy lacks, is carried as its 16 bits in a UINT16
array. Everything else is little-endian, whatever the machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Datatype:
    """One row of the table.

    Attributes:
        name: what the protocol calls it.
        dtype: what numpy calls it.
        onnx: what ONNX Runtime calls it, `tensor(…)`.
        contents: the field of `InferTensorContents` that may carry it, or None if only raw bytes.
        config: its number in `model_config.proto`.
    """

    name: str
    dtype: np.dtype[np.generic]
    onnx: str
    contents: str | None
    config: int


def _row(name: str, dtype: str, onnx: str, contents: str | None, config: int) -> Datatype:
    return Datatype(name, np.dtype(dtype), f"tensor({onnx})", contents, config)


DATATYPES = {
    row.name: row
    for row in (
        _row("BOOL", "?", "bool", "bool_contents", 1),
        _row("UINT8", "u1", "uint8", "uint_contents", 2),
        _row("UINT16", "<u2", "uint16", "uint_contents", 3),
        _row("UINT32", "<u4", "uint32", "uint_contents", 4),
        _row("UINT64", "<u8", "uint64", "uint64_contents", 5),
        _row("INT8", "i1", "int8", "int_contents", 6),
        _row("INT16", "<i2", "int16", "int_contents", 7),
        _row("INT32", "<i4", "int32", "int_contents", 8),
        _row("INT64", "<i8", "int64", "int64_contents", 9),
        _row("FP16", "<f2", "float16", None, 10),
        _row("FP32", "<f4", "float", "fp32_contents", 11),
        _row("FP64", "<f8", "double", "fp64_contents", 12),
        _row("BYTES", "O", "string", "bytes_contents", 13),
        _row("BF16", "<u2", "bfloat16", None, 14),
    )
}
BY_ONNX = {row.onnx: row for row in DATATYPES.values()}
_BY_DTYPE = {row.dtype: row for row in DATATYPES.values() if row.name != "BF16"}

_LENGTH_BYTES = 4


def datatype_of(dtype: np.dtype[np.generic]) -> str:
    """The protocol's name of a numpy dtype; strings of any kind are BYTES.

    Raises:
        ValueError: the protocol has no such datatype.
    """
    row = _BY_DTYPE.get(dtype)
    if row is not None:
        return row.name
    if dtype.kind in "OSU":
        return "BYTES"
    if dtype.name == "bfloat16":
        return "BF16"
    row = _BY_DTYPE.get(dtype.newbyteorder("<"))
    if row is None:
        raise ValueError(f"dtype {dtype} has no datatype in the inference protocol")
    return row.name


def to_raw(array: NDArray[np.generic]) -> bytes:
    """An array as the protocol's raw bytes: little-endian, row-major, unpadded."""
    if array.dtype.kind in "OSU":
        return _strings_to_raw(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def from_raw(raw: bytes, datatype: str, shape: Sequence[int]) -> NDArray[np.generic]:
    """The protocol's raw bytes as an array; numbers are viewed, not copied.

    Raises:
        ValueError: the bytes are not exactly the elements of `shape`.
    """
    row = DATATYPES[datatype]
    count = math.prod(shape)
    if datatype == "BYTES":
        elements = _strings_from_raw(raw, count)
        return elements.reshape(shape)
    expected_bytes = count * row.dtype.itemsize
    if len(raw) != expected_bytes:
        raise ValueError(f"expected {expected_bytes} bytes, got {len(raw)}")
    return np.ndarray(shape, row.dtype, raw)


def _strings_to_raw(array: NDArray[Any]) -> bytes:
    pieces: list[bytes] = []
    for element in array.ravel():
        data = element.encode() if isinstance(element, str) else bytes(element)
        pieces += (len(data).to_bytes(_LENGTH_BYTES, "little"), data)
    return b"".join(pieces)


def _strings_from_raw(raw: bytes, count: int) -> NDArray[np.object_]:
    if count * _LENGTH_BYTES > len(raw):
        raise ValueError(f"expected {count} elements, got {len(raw)} bytes")
    elements = np.empty(count, object)
    position = 0
    for index in range(count):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(raw[start - _LENGTH_BYTES : start], "little")
        if start > len(raw) or position > len(raw):
            raise ValueError(f"element {index} of {count} ends past the {len(raw)} bytes sent")
        elements[index] = raw[start:position]
    if position != len(raw):
        raise ValueError(f"expected {count} elements in {position} bytes, got {len(raw)} bytes")
    return elements
