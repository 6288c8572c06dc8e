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
from weir.server.runtime.signature import MAX_TENSORS

SMALL_BYTES = 4096
# Parsing and decoding an element costs up to 0.5 µs: 4096 hold the transport's thread for 2 ms.
INLINE_ELEMENTS = 4096
_MAX_FIELDS = 16_384
_MAX_TYPED_FIELDS = 65_536
# Read on the transport's thread, whatever the message's size: sixteen thousand hold it for 30 ms.
_MAX_TOP_FIELDS = 2048

_PARAMETERS, _INPUTS, _OUTPUTS = 4, 5, 6
_SHAPE, _CONTENTS = 3, 5
# The field numbers of texts and tokens, the same in every task call that takes texts.
_TEXTS, _TOKENS = 4, 2
_MAX_SHAPE_BYTES = 10 * 64
# Nothing counts the parts of a parameter; of a megabyte of them protobuf reads 4 ms.
_MAX_PARAMETER_BYTES = 2**20
# Packed numbers are one field, of which protobuf reads a megabyte in 2 ms or more.
_MAX_CONTENTS_BYTES = 8 * 2**20

SMALL_CALL_BYTES = 64 * 1024
"""The largest message of a call that carries no data, and of a name; 64 KiB parse within 2 ms."""


@dataclass(slots=True)
class _Budget:
    """How many more fields of a message are counted; nesting does not raise it."""

    what: str
    left: int


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
    contents: list[tuple[int, int]] = []
    tensors = {_INPUTS: 0, _OUTPUTS: 0}
    for number, start, end in _fields(payload, 0, len(payload), parts):
        if number in tensors:
            tensors[number] += 1
            if tensors[number] > MAX_TENSORS:
                what = "inputs" if number == _INPUTS else "outputs"
                raise InvalidRequest(f"{what}: expected at most {MAX_TENSORS}, got more")
        if start == end:
            continue
        if number == _INPUTS:
            _check_tensor(payload, start, end, parts, contents)
        elif number == _OUTPUTS:
            _count(payload, start, end, parts)
        elif number == _PARAMETERS and end - start > _MAX_PARAMETER_BYTES:
            raise InvalidRequest(
                f"a parameter: expected at most {_MAX_PARAMETER_BYTES} bytes, got {end - start}"
            )
    # A field takes two bytes or more, so most contents need not be walked through.
    if sum(end - start for start, end in contents) > 2 * typed.left:
        for start, end in contents:
            _count(payload, start, end, typed)


def read_texts(payload: bytes, *numbers: int) -> list[str]:
    """The texts of these top-level fields, read before the message is parsed; empty if absent."""
    budget = _Budget(f"fields in the request, expected at most {_MAX_TOP_FIELDS}", _MAX_TOP_FIELDS)
    found = dict.fromkeys(numbers, (0, 0))
    for number, start, end in _fields(payload, 0, len(payload), budget):
        if number in found:
            found[number] = start, end
    texts = []
    for number, (start, end) in found.items():
        if end - start > SMALL_CALL_BYTES:
            raise InvalidRequest(
                f"field {number}: expected at most {SMALL_CALL_BYTES} bytes, got {end - start}"
            )
        try:
            texts.append(str(payload[start:end], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidRequest(f"field {number}: expected UTF-8, got other bytes") from None
    return texts


def check_texts(payload: bytes) -> None:
    """Refuse a task call of more tokens than any model could need; each becomes an object."""
    if len(payload) <= SMALL_BYTES:
        return
    parts = _Budget(f"tokens in the request, expected at most {_MAX_FIELDS}", _MAX_FIELDS)
    for number, start, end in _fields(payload, 0, len(payload), parts):
        if number != _TEXTS:
            continue
        for kind, text_start, text_end in _fields(payload, start, end, parts):
            if kind == _TOKENS:
                _count(payload, text_start, text_end, parts)


def check_small(payload: bytes) -> None:
    """Refuse a message that is far larger than any of its kind: it is parsed where it arrives."""
    if len(payload) > SMALL_CALL_BYTES:
        raise InvalidRequest(
            f"expected a message of at most {SMALL_CALL_BYTES} bytes, got {len(payload)}"
        )


def _check_tensor(
    data: bytes, start: int, end: int, parts: _Budget, contents: list[tuple[int, int]]
) -> None:
    """Check an input, and append where its typed contents are."""
    for number, field_start, field_end in _fields(data, start, end, parts):
        if number == _SHAPE and field_end - field_start > _MAX_SHAPE_BYTES:
            raise InvalidRequest(
                f"shape of an input: expected at most {_MAX_SHAPE_BYTES} bytes, got "
                f"{field_end - field_start}: an input has far too many axes"
            )
        if number == _CONTENTS:
            if field_end - field_start > _MAX_CONTENTS_BYTES:
                raise InvalidRequest(
                    f"typed contents: expected at most {_MAX_CONTENTS_BYTES} bytes, got "
                    f"{field_end - field_start}: send so many as raw_input_contents"
                )
            contents.append((field_start, field_end))


def _count(data: bytes, start: int, end: int, budget: _Budget) -> None:
    for _ in _fields(data, start, end, budget):
        pass


def _fields(
    data: bytes, position: int, end: int, budget: _Budget
) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field between two positions, within the budget.

    The number is 0 if the field holds no bytes: protobuf skips one of a wrong wire type.

    Keys and lengths of one byte are read in place: calls of functions would triple the cost.
    """
    while position < end:
        budget.left -= 1
        if budget.left < 0:
            raise InvalidRequest(f"too many {budget.what}")
        key = data[position]
        position += 1
        if key > 0x7F:
            key, position = _varint(data, position - 1, end)
        start = position
        kind = key & 7
        if kind == 2:
            length = data[position] if position < end else 0x80
            if length > 0x7F:
                length, start = _varint(data, position, end)
            else:
                start = position + 1
            position = start + length
        elif kind == 0:
            _, position = _varint(data, position, end)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise InvalidRequest("the message is no valid protobuf: group fields are not used here")
        if position > end:
            raise InvalidRequest("the message is no valid protobuf: a field ends past its message")
        yield key >> 3 if kind == 2 else 0, start, position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise InvalidRequest("the message is no valid protobuf: a number does not end")
