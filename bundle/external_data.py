"""Finds what an ONNX file would load from other files, before any runtime sees it.

ONNX Runtime resolves references to external data by itself: relative to its working directory
when given bytes, and through hard links. So they are looked for here, on the wire bytes:

- Only messages that can hold a tensor are entered; everything else is skipped by its length,
  so a file costs time by its number of nodes, not by its size, and memory by its depth alone.
- A message may be split on the wire and is merged by a parser: each part is looked at, and any
  trace of external data counts, whatever a parser would make of the whole.
- Nesting deeper than protobuf's own limit is refused as malformed, as is what `protobuf_wire` refuses.
"""

from collections.abc import Iterator

from weir.bundle.errors import BrokenBundle
from weir.bundle.protobuf_wire import MalformedError, read_fields
from weir.bundle.wording import quoted

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
# Protobuf's own limit, of ONNX Runtime too.
_MOST_NESTED = 100
_WITHOUT_LOCATION = "(no location)"


def refuse(model: bytes, file: str) -> None:
    """Raise BrokenBundle, naming the places, if `model` refers to data outside itself."""
    places = locations(model, file)
    if places:
        raise BrokenBundle(
            f"{file}: expected all weights inside the file, got external data in "
            + quoted([repr(place) for place in places])
        )


def locations(model: bytes, file: str = "model") -> list[str]:
    """Where the tensors of an ONNX file lie outside it, each location once.

    Raises:
        BrokenBundle: the bytes are no protobuf message.
    """
    try:
        found = dict.fromkeys(_places(memoryview(model)))
    except MalformedError as error:
        raise BrokenBundle(f"{file}: expected an ONNX file, got malformed bytes: {error}") from None
    named = [place for place in found if place != _WITHOUT_LOCATION]
    return named or list(found)


def _places(model: memoryview) -> Iterator[str]:
    """Each trace of external data, in the order of the file."""
    # The messages that are open, from the outside in: a queue of all that are yet to be read would take a
    # hundred times as much memory as a file of a million empty nodes.
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
            # Any value but the default: how a parser truncates others is not our bet.
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
