"""External data of an ONNX file: weights in other files, which this module reads for the runtime.

ONNX Runtime resolves references to external data by itself: relative to its working directory
when given bytes, and through links. This module finds them in the wire bytes and writes the graph
anew, so that no path is left in it:

- Only messages that can hold a tensor are entered. Every other message is skipped by its length,
  so a file costs time by its number of nodes, not by its size, and memory by its depth alone.
- A message may be split on the wire, and a parser merges its parts. Each part is read, and any
  sign of external data counts, whatever the merged message would say.
- Nesting deeper than protobuf's own limit is malformed, as is everything that `protobuf_wire`
  refuses.
- A location is the name of a file beside the graph, perhaps after `./`. A tensor's bytes lie within
  that file.
- A tensor of up to 4 KiB gets its bytes inside the graph, because ONNX Runtime makes shapes of
  small ones. So does each that is no initializer of the main graph, because ONNX Runtime looks for
  those on the disk even if it was given their file.
- The others get a location of their own: a name that is too long for any file system.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from weir.bundle.errors import BrokenBundle
from weir.bundle.escaping import short_repr
from weir.bundle.graph_nodes import packed_integers, signed
from weir.bundle.protobuf_wire import (
    MalformedError,
    read_fields,
    read_spans,
    write_fields,
    write_header,
)

# Message type -> field number -> message type of that field, after onnx.proto (IR version 13).
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
}
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_EXTERNAL = 1
_KEY, _VALUE = 1, 2
# The limit of protobuf and of ONNX Runtime.
_MOST_NESTED = 100
_MOST_BYTES = (1 << 31) - 1
_WITHOUT_LOCATION = "(no location)"

_MOST_INSIDE = 4096
# No file system has names of more than 255 bytes.
_LOCATION_LENGTH = 300

# Bits of an element, by the tensor's type in onnx.proto. A text has no size.
_BITS: Mapping[int, int] = MappingProxyType(
    {
        1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
        14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2,
        26: 2,
    }
)  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,19}")

_Parts = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """An initializer outside the graph, in memory.

    Attributes:
        location: the file name in the graph; no such file exists.
        data_type: of onnx.proto.
    """

    name: str
    location: str
    data_type: int
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, slots=True)
class ResolvedGraph:
    """An ONNX file with all of its weights in memory: in `model`, or in `external`."""

    model: bytes
    external: tuple[ExternalTensor, ...] = ()


def resolve(model: bytes, read: Callable[[str], bytes], file: str = "model.onnx") -> ResolvedGraph:
    """The graph of an ONNX file, with the external data that it refers to.

    Args:
        model: the bytes of `file`.
        read: reads a file beside the graph, by its name; called once for each.

    Raises:
        BrokenBundle: the file is malformed, or a location or a tensor's place in a file is invalid.
    """
    if not locations(model, file):
        return ResolvedGraph(model)
    resolver = _Resolver(read, file)
    try:
        parts = resolver.message("Model", memoryview(model), is_main=False) or [model]
    except MalformedError as error:
        raise _malformed(file, error) from None
    size = _size(parts)
    if size > _MOST_BYTES:
        raise BrokenBundle(
            f"{file}: expected at most {_MOST_BYTES} bytes of constants inside the nodes, got "
            f"{size}"
        )
    return ResolvedGraph(b"".join(parts), tuple(resolver.external.values()))


def locations(model: bytes, file: str = "model") -> list[str]:
    """The locations of an ONNX file's external data, each once; BrokenBundle if it is malformed."""
    try:
        found = dict.fromkeys(_locations(memoryview(model)))
    except MalformedError as error:
        raise _malformed(file, error) from None
    named = [location for location in found if location != _WITHOUT_LOCATION]
    return named or list(found)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor's message.

    Attributes:
        kept: the fields that say nothing of where its bytes are.
        raw_data: the field of its bytes inside.
        entries: of its external data.
        has_location: whether any field says where its bytes are.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    kept: _Parts
    raw_data: _Parts
    entries: Sequence[memoryview]
    has_location: bool
    is_external: bool


class _Resolver:
    """Writes the messages of one ONNX file anew; `external` are the tensors that stay outside."""

    def __init__(self, read: Callable[[str], bytes], file: str) -> None:
        self.external: dict[str, ExternalTensor] = {}
        self._read = read
        self._file = file
        self._files: dict[str, memoryview] = {}

    def message(self, kind: str, message: memoryview, *, is_main: bool) -> _Parts | None:
        """The parts of a message without references to files; None if it has none."""
        parts: _Parts = []
        copied = 0
        for number, value, start, end in read_spans(message):
            child = _FIELDS[kind].get(number)
            if child is None or not isinstance(value, memoryview):
                continue
            if child == "Tensor":
                stays = kind == "Graph" and is_main and number == _GRAPH_INITIALIZER
                new = self._tensor(value, stays_outside=stays)
            else:
                is_graph = kind == "Model" and number == _MODEL_GRAPH
                new = self.message(child, value, is_main=is_graph)
            if new is not None:
                parts += [message[copied:start], write_header(number, _size(new)), *new]
                copied = end
        return [*parts, message[copied:]] if parts else None

    def _tensor(self, message: memoryview, *, stays_outside: bool) -> _Parts | None:
        """The parts of a tensor without references; None if it has none."""
        tensor = _read_tensor(message)
        if not tensor.has_location:
            return None
        if not tensor.is_external:
            return [*tensor.kept, *tensor.raw_data]
        where = f"{self._file}: external data of {short_repr(tensor.name)}"
        data = self._data(where, tensor.entries, _size_of(where, tensor.data_type, tensor.shape))
        if len(data) <= _MOST_INSIDE or not stays_outside:
            return [*tensor.kept, write_header(_RAW_DATA, len(data)), data]
        if tensor.name in self.external:
            raise BrokenBundle(f"{where}: expected one initializer of that name, got two")
        location = f"{len(self.external):0{_LOCATION_LENGTH}}"
        self.external[tensor.name] = ExternalTensor(
            tensor.name, location, tensor.data_type, tensor.shape, data
        )
        facts = {"location": location, "offset": "0", "length": str(len(data))}
        return [*tensor.kept, _reference(facts)]

    def _data(self, where: str, entries: Sequence[memoryview], size: int) -> memoryview:
        """The bytes of a tensor, in the file that its entries name."""
        facts: dict[str, str] = {}
        for entry in entries:
            key, value = _entry(entry)
            if key in facts:
                raise BrokenBundle(f"{where}: expected one {short_repr(key)}, got two")
            facts[key] = value
        location = facts.get("location", "").removeprefix("./")
        if not is_file_name(location):
            raise BrokenBundle(
                f"{where}: expected the name of a file beside the graph, got {short_repr(location)}"
            )
        offset = _number(where, "offset", facts.get("offset", "0"))
        length = _number(where, "length", facts.get("length", str(size)))
        if length != size:
            raise BrokenBundle(
                f"{where}: expected the {size} bytes of its type and shape, got a length of "
                f"{length}"
            )
        if location not in self._files:
            self._files[location] = memoryview(self._read(location))
        content = self._files[location]
        if offset + size > len(content):
            raise BrokenBundle(
                f"{where}: expected at least {offset + size} bytes in {short_repr(location)}, got "
                f"{len(content)}: is the file complete?"
            )
        return content[offset : offset + size]


def _read_tensor(message: memoryview) -> _Tensor:
    """The fields of a tensor."""
    dims: list[int] = []
    entries: list[memoryview] = []
    kept, raw_data = _Parts(), _Parts()
    location: int | None = None
    data_type, name = 0, b""
    for number, value, start, end in read_spans(message):
        if number not in (_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION):
            kept.append(message[start:end])
        match number, value:
            case (1, int() | memoryview()):  # dims
                dims += [value] if isinstance(value, int) else packed_integers(value)
            case (2, int()):  # data_type
                data_type = value
            case (8, memoryview()):  # name
                name = bytes(value)
            case (9, _):  # raw_data
                raw_data.append(message[start:end])
            case (13, memoryview()):  # external_data
                entries.append(value)
            case (14, int()):  # data_location
                location = value
    # Parsers differ in how they truncate other values.
    if location not in (None, 0, _EXTERNAL):
        raise MalformedError(f"data_location {location} of a tensor")
    return _Tensor(
        name=name.decode(errors="backslashreplace"),
        data_type=data_type,
        shape=tuple(signed(size) for size in dims),
        kept=kept,
        raw_data=raw_data,
        entries=entries,
        has_location=bool(entries) or location is not None,
        is_external=location == _EXTERNAL,
    )


def is_file_name(location: str) -> bool:
    """Whether a location is a plain file name: no other directory, drive or special name."""
    return location not in ("", ".", "..") and not set(location) & set("/\\\0")


def _size_of(where: str, data_type: int, shape: Sequence[int]) -> int:
    """The bytes of a tensor; elements of less than 8 bits are packed."""
    if data_type not in _BITS:
        raise BrokenBundle(f"{where}: expected a type of numbers, got type {data_type}")
    if any(size < 0 for size in shape):
        raise BrokenBundle(f"{where}: expected sizes from 0, got shape {short_repr(list(shape))}")
    return (math.prod(shape) * _BITS[data_type] + 7) // 8


def _number(where: str, key: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BrokenBundle(f"{where}: {key}: expected a number of bytes, got {short_repr(text)}")
    return int(text)


def _reference(facts: Mapping[str, str]) -> bytes:
    """The fields of a tensor that refer to external data."""
    entries = [
        write_fields([(_KEY, key.encode()), (_VALUE, value.encode())])
        for key, value in facts.items()
    ]
    return write_fields(
        [(_DATA_LOCATION, _EXTERNAL), *((_EXTERNAL_DATA, entry) for entry in entries)]
    )


def _size(parts: _Parts) -> int:
    return sum(map(len, parts))


def _locations(model: memoryview) -> Iterator[str]:
    """The location of each sign of external data, in the order of the file."""
    # The open messages, from the outside in: a queue of all unread messages would take a hundred
    # times as much memory as a file of a million empty nodes.
    opened = [("Model", read_fields(model))]
    while opened:
        kind, fields = opened[-1]
        field = next(fields, None)
        if field is None:
            opened.pop()
            continue
        number, value = field
        child = _FIELDS[kind].get(number)
        if isinstance(value, int):
            # Any value but the default: parsers differ in how they truncate others.
            if kind == "Tensor" and number == _DATA_LOCATION and value != 0:
                yield _WITHOUT_LOCATION
        elif child == "ExternalData":
            key, text = _entry(value)
            # Other entries (offset, length) only say "external".
            yield text if key == "location" else _WITHOUT_LOCATION
        elif child is not None:
            if len(opened) > _MOST_NESTED:
                raise MalformedError(f"messages nested more than {_MOST_NESTED} deep")
            opened.append((child, read_fields(value)))


def _entry(entry: memoryview) -> tuple[str, str]:
    """Key and value of an entry of external data."""
    texts = {
        number: bytes(value).decode(errors="backslashreplace")
        for number, value in read_fields(entry)
        if not isinstance(value, int)
    }
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _malformed(file: str, error: MalformedError) -> BrokenBundle:
    return BrokenBundle(f"{file}: expected an ONNX file, got malformed bytes: {error}")
