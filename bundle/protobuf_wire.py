"""Protobuf wire format: reads and writes fields of a message without its declaration.

Groups and tags beyond 32 bits, which a lenient parser would still read, are refused as malformed.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int | bytes | memoryview]
"""The number of a field, with its integer or its bytes."""


class MalformedError(Exception):
    """The bytes break the protobuf wire format."""


class FieldSpan(NamedTuple):
    """A field, and where it is: from its tag at byte `start` to byte `end`, exclusive.

    `value` is its integer or a view of its bytes; None for a field of fixed size.
    """

    number: int
    value: int | memoryview | None
    start: int
    end: int


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number, with its integer or a view of its bytes; MalformedError if malformed."""
    for number, value, _, _ in read_spans(message):
        if value is not None:
            yield number, value


def read_spans(message: memoryview) -> Iterator[FieldSpan]:
    """Each field, with its place; MalformedError if malformed."""
    position, end = 0, len(message)
    while position < end:
        start = position
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise MalformedError(f"tag {tag} at byte {position}")
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield FieldSpan(number, value, start, position)
            continue
        if wire_type == _LENGTH:
            length, position = _varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise MalformedError(f"wire type {wire_type} at byte {position}")
        if length > end - position:
            raise MalformedError(f"a field of {length} bytes where {end - position} are left")
        position += length
        content = message[position - length : position] if wire_type == _LENGTH else None
        yield FieldSpan(number, content, start, position)


def read_varints(packed: memoryview) -> Iterator[int]:
    """The integers of a packed field; MalformedError if malformed."""
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def write_varint(value: int) -> bytes:
    """The base-128 form of an integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def write_header(number: int, length: int) -> bytes:
    """Tag and length of a field of `length` bytes."""
    return write_varint(number << 3 | _LENGTH) + write_varint(length)


def write_fields(fields: Iterable[Field]) -> bytes:
    """A message of these fields: integers, and bytes with their length."""
    parts: list[bytes | memoryview] = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [write_varint(number << 3), write_varint(value)]
        else:
            parts += [write_header(number, len(value)), value]
    return b"".join(parts)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A base-128 integer of at most ten bytes, and the position behind it."""
    # Nearly all have one byte; without this line, the nodes of a large graph take twice as long.
    if position < len(message) and message[position] < 0x80:
        return message[position], position + 1
    result = 0
    for shift, byte in zip(range(0, 70, 7), message[position : position + 10], strict=False):
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position + shift // 7 + 1
    raise MalformedError(f"an unfinished integer at byte {position}")
