"""Fields of protobuf messages, written by hand: also those that no library would write."""


def varint(value: int) -> bytes:
    """A number."""
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*pieces, value))


def field(number: int, data: bytes) -> bytes:
    """A field of bytes: a text, a message or packed numbers."""
    return varint(number << 3 | 2) + varint(len(data)) + data
