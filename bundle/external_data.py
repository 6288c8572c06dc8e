"""External data of an ONNX file: references to other files, found before a runtime reads the file.

ONNX Runtime resolves references to external data by itself: relative to its working directory
when given bytes, and through hard links. This module finds them in the wire bytes:

- Only messages that can hold a tensor are entered. Every other message is skipped by its length,
  so a file costs time by its number of nodes, not by its size, and memory by its depth alone.
- A message may be split on the wire, and a parser merges its parts. Each part is read, and any
  sign of external data counts, whatever the merged message would say.
- Nesting deeper than protobuf's own limit is malformed, as is everything that `protobuf_wire`
  refuses.
"""

from collections.abc import Iterator

from weir.bundle.errors import BrokenBundle
from weir.bundle.escaping import short_list
from weir.bundle.protobuf_wire import MalformedError, read_fields

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
_DATA_LOCATION = 14
_KEY, _VALUE = 1, 2
# The limit of protobuf and of ONNX Runtime.
_MOST_NESTED = 100
_WITHOUT_LOCATION = "(no location)"


def refuse(model: bytes, file: str) -> None:
    """Raise BrokenBundle, naming the locations, if `model` refers to data outside itself."""
    if found := locations(model, file):
        raise BrokenBundle(
            f"{file}: expected all weights inside the file, got external data in "
            + short_list([repr(location) for location in found])
        )


def locations(model: bytes, file: str = "model") -> list[str]:
    """The locations of an ONNX file's external data, each once; BrokenBundle if it is malformed."""
    try:
        found = dict.fromkeys(_locations(memoryview(model)))
    except MalformedError as error:
        raise BrokenBundle(f"{file}: expected an ONNX file, got malformed bytes: {error}") from None
    named = [location for location in found if location != _WITHOUT_LOCATION]
    return named or list(found)


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
            yield _location(value)
        elif child is not None:
            if len(opened) > _MOST_NESTED:
                raise MalformedError(f"messages nested more than {_MOST_NESTED} deep")
            opened.append((child, read_fields(value)))


def _location(entry: memoryview) -> str:
    """The value of a `location` entry; other entries (offset, length) only say "external"."""
    texts = {
        number: bytes(value) for number, value in read_fields(entry) if not isinstance(value, int)
    }
    if texts.get(_KEY) != b"location":
        return _WITHOUT_LOCATION
    return texts.get(_VALUE, b"").decode(errors="backslashreplace")
