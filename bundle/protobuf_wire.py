"""Protobuf wire format: reads the fields of a message without its declaration.

Groups and tags beyond 32 bits, which a lenient parser would still read, are refused as malformed.
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class MalformedError(Exception):
    """The bytes break the protobuf wire format."""


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number, with its integer or a view of its bytes; MalformedError if malformed."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise MalformedError(f"tag {tag} at byte {position}")
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == _LENGTH:
            length, position = _varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise MalformedError(f"wire type {wire_type} at byte {position}")
        if length > end - position:
            raise MalformedError(f"a field of {length} bytes where {end - position} are left")
        if wire_type == _LENGTH:
            yield number, message[position : position + length]
        position += length


def read_varints(packed: memoryview) -> Iterator[int]:
    """The integers of a packed field; MalformedError if malformed."""
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A base-128 integer of at most ten bytes, and the position behind it."""
    result = 0
    for shift, byte in zip(range(0, 70, 7), message[position : position + 10], strict=False):
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position + shift // 7 + 1
    raise MalformedError(f"an unfinished integer at byte {position}")
