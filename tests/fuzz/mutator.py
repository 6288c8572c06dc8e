"""Mutations of protobuf messages: of their fields, lengths and numbers.

A message is read as a list of fields, which may be messages too. What is no field stays as bytes.
"""

import random
from collections.abc import Iterator

from tests.helpers.protobuf_wire import field, varint

MOST_BYTES = 1 << 18
_NUMBERS = (0, 1, 2, 127, 128, 255, 2**14, 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63, 2**64 - 1)
# Large messages take a hundred times as long: they are the fewest.
_REPEATS = (*(2, 3, 10, 70) * 10, 1500, 5000, 17_000, 70_000)
_FIELDS = range(1, 10)


def mutated(data: bytes, random_: random.Random, most_bytes: int = MOST_BYTES) -> bytes:
    """A message, changed in one to four places."""
    for _ in range(random_.choice((1, 1, 2, 4))):
        data = _mutated_once(data, random_, most_bytes, depth=0)
    return data[:most_bytes]


def crossed(one: bytes, other: bytes, random_: random.Random) -> bytes:
    """The fields of two messages, which protobuf reads as one."""
    fields = [*_fields(one), *_fields(other)]
    random_.shuffle(fields)
    return b"".join(fields[: random_.randint(0, len(fields))])[:MOST_BYTES]


def _mutated_once(data: bytes, random_: random.Random, most: int, depth: int) -> bytes:
    if not data or random_.random() < 0.15:
        return _mutated_bytes(data, random_)
    fields = list(_fields(data))
    at = random_.randrange(len(fields))
    piece = fields[at]
    payload = _payload_of(piece)
    choice = random_.randrange(9)
    if payload is not None and depth < 4 and choice < 4:
        changed = _mutated_once(payload, random_, most, depth + 1)
        number = piece[0] >> 3
        # Sometimes the length stays that of before.
        fields[at] = field(number, changed) if choice else piece[: -len(payload) or None] + changed
    elif choice < 5:
        del fields[at]
    elif choice == 5:
        most_copies = max(1, most // max(1, len(piece)))
        fields[at] = piece * min(random_.choice(_REPEATS), most_copies)
    elif choice == 6:
        fields.insert(at, _new_field(random_))
    elif choice == 7:
        fields[at] = varint(random_.choice(_FIELDS) << 3 | piece[0] & 7) + piece[1:]
    else:
        random_.shuffle(fields)
    return b"".join(fields)


def _new_field(random_: random.Random) -> bytes:
    number = random_.choice((*_FIELDS, 99))
    kind = random_.randrange(6)
    if kind == 0:
        return varint(number << 3) + varint(random_.choice(_NUMBERS))
    if kind == 1:
        return varint(number << 3 | 1) + random_.randbytes(8)
    if kind == 2:
        return varint(number << 3 | 5) + random_.randbytes(4)
    if kind == 3:
        return varint(number << 3 | random_.choice((3, 4)))
    if kind == 4:
        return varint(number << 3 | 2) + varint(random_.choice(_NUMBERS)) + random_.randbytes(3)
    size = random_.choice((*(0, 1, 8, 600, 700) * 4, 4100, 140_000))
    return field(number, random_.randbytes(1) * size)


def _mutated_bytes(data: bytes, random_: random.Random) -> bytes:
    at = random_.randint(0, len(data))
    choice = random_.randrange(4)
    if choice == 0:
        return data[:at]
    if choice == 1:
        return data[:at] + random_.randbytes(random_.randint(1, 4)) + data[at:]
    if choice == 2:
        return data[:at] + varint(random_.choice(_NUMBERS)) + data[at + 1 :]
    return data[:at] + bytes([random_.randrange(256)]) + data[at + 1 :]


def _fields(data: bytes) -> Iterator[bytes]:
    """The fields of a message, each with its key; the rest, if it is none."""
    position = 0
    while position < len(data):
        end = _end_of_field(data, position)
        yield data[position:end]
        position = end


def _end_of_field(data: bytes, position: int) -> int:
    kind = data[position] & 7
    at = position
    while at < len(data) and data[at] & 0x80:
        at += 1
    at += 1
    if kind in (0, 2):
        value = shift = 0
        while at < len(data) and data[at] & 0x80:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
        if at < len(data):
            value |= data[at] << shift
        at += 1 + (value if kind == 2 else 0)
    elif kind in (1, 5):
        at += 8 if kind == 1 else 4
    return min(at, len(data))


def _payload_of(piece: bytes) -> bytes | None:
    """The bytes of a field of bytes with a key of one byte; None for another field."""
    if len(piece) < 2 or piece[0] & 0x87 != 2:
        return None
    at = 1
    while at < len(piece) and piece[at] & 0x80:
        at += 1
    return piece[at + 1 :]
