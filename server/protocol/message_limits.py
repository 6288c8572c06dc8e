"""Message limits: the parts of a message, counted in its raw bytes before protobuf parses it.

A 4 MiB message of empty inputs costs protobuf 160 MiB and seconds of Python. Counting its fields
and stopping at the limit costs microseconds. Small messages are not counted: they cannot hold
enough parts to do harm. Every function raises InvalidRequest for too many parts, and for bytes that
are no protobuf message.

The wire format, as far as it is needed: a field is a varint key (number << 3 | type) followed by a
varint (type 0), 8 bytes (1), a varint length and that many bytes (2), or 4 bytes (5).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from weir.server.errors import InvalidRequest

SMALL_BYTES = 4096
# Counting or decoding an element costs up to 0.4 µs: 4096 hold the transport's thread for 2 ms, and
# 65,000 hold it for 30 to 80 ms.
INLINE_ELEMENTS = 4096
_MAX_FIELDS = 16_384
_MAX_TYPED_FIELDS = 65_536
# Read on the transport's thread, whatever the message's size: sixteen thousand hold it for 30 ms.
_MAX_TOP_FIELDS = 2048

_INPUTS, _OUTPUTS = 5, 6
_SHAPE, _CONTENTS = 3, 5
# The field numbers of texts and tokens, the same in every task call that takes texts.
_TEXTS, _TOKENS = 4, 2
_MAX_SHAPE_BYTES = 10 * 64


@dataclass(slots=True)
class _Budget:
    """How many more fields of a message are counted; nesting does not raise it."""

    what: str
    left: int

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise InvalidRequest(f"too many {self.what}")


def check_counts(payload: bytes) -> None:
    """Refuse a `ModelInferRequest` of more parts than any model could need."""
    if len(payload) <= SMALL_BYTES:
        return
    parts = _Budget(f"fields in the request, expected at most {_MAX_FIELDS}", _MAX_FIELDS)
    typed = _Budget(
        f"typed elements, expected at most {_MAX_TYPED_FIELDS}: send many as raw_input_contents",
        _MAX_TYPED_FIELDS,
    )
    _count_request(payload, parts, typed)


def has_few_parts(payload: bytes) -> bool:
    """Whether a `ModelInferRequest` has at most `INLINE_ELEMENTS` parts, and typed elements."""
    if len(payload) <= SMALL_BYTES:
        return True
    parts, typed = _Budget("parts", INLINE_ELEMENTS), _Budget("elements", INLINE_ELEMENTS)
    try:
        _count_request(payload, parts, typed)
    except InvalidRequest:
        if min(parts.left, typed.left) < 0:
            return False
        raise
    return True


def _count_request(payload: bytes, parts: _Budget, typed: _Budget) -> None:
    view = memoryview(payload)
    for number, start, end in _fields(view, 0, len(view), parts):
        if number == _INPUTS:
            _check_tensor(view, start, end, parts, typed)
        elif number == _OUTPUTS:
            _count(view, start, end, parts)


def read_texts(payload: bytes, *numbers: int) -> list[str]:
    """The texts of these top-level fields, read before the message is parsed; empty if absent."""
    view = memoryview(payload)
    budget = _Budget(f"fields in the request, expected at most {_MAX_TOP_FIELDS}", _MAX_TOP_FIELDS)
    found = dict.fromkeys(numbers, "")
    for number, start, end in _fields(view, 0, len(view), budget):
        if number in found:
            try:
                found[number] = str(view[start:end], "utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest(f"field {number}: expected UTF-8, got other bytes") from None
    return list(found.values())


def check_texts(payload: bytes) -> None:
    """Refuse a task call of more tokens than any model could need; each becomes an object."""
    if len(payload) <= SMALL_BYTES:
        return
    view = memoryview(payload)
    parts = _Budget(f"tokens in the request, expected at most {_MAX_FIELDS}", _MAX_FIELDS)
    for number, start, end in _fields(view, 0, len(view), parts):
        if number != _TEXTS:
            continue
        for kind, text_start, text_end in _fields(view, start, end, parts):
            if kind == _TOKENS:
                _count(view, text_start, text_end, parts)


def _check_tensor(view: memoryview, start: int, end: int, parts: _Budget, typed: _Budget) -> None:
    for number, field_start, field_end in _fields(view, start, end, parts):
        if number == _SHAPE and field_end - field_start > _MAX_SHAPE_BYTES:
            raise InvalidRequest("an input has far too many axes")
        if number == _CONTENTS:
            _count(view, field_start, field_end, typed)


def _count(view: memoryview, start: int, end: int, budget: _Budget) -> None:
    for _ in _fields(view, start, end, budget):
        pass


def _fields(
    view: memoryview, position: int, end: int, budget: _Budget
) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field between two positions, within the budget."""
    while position < end:
        budget.spend()
        key, position = _varint(view, position, end)
        start = position
        kind = key & 7
        if kind == 2:
            length, start = _varint(view, position, end)
            position = start + length
        elif kind == 0:
            _, position = _varint(view, position, end)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise InvalidRequest("the message is no valid protobuf: group fields are not used here")
        if position > end:
            raise InvalidRequest("the message is no valid protobuf: a field ends past its message")
        yield key >> 3, start, position


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise InvalidRequest("the message is no valid protobuf: a number does not end")
