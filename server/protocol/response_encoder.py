"""Response encoder: numpy → the bytes of protobuf messages.

Responses carry raw contents only: Triton's Python client reads no others. A response that is larger
than a message may be raises ResponseTooLarge.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb
from weir.protocol.datatypes import DATATYPES, to_raw
from weir.server.errors import InvalidRequest, ResponseTooLarge
from weir.server.runtime.signature import Form

Array = NDArray[Any]

_RESPONSE_ID, _RESPONSE_RAW = 3, 6
_STREAMED_RESPONSE = 2
# The most that `as_streamed` adds; on a stream a message over the limit ends every request.
STREAM_BYTES = 64
_MAX_REMEMBERED = 1024
# Each is a Python string, made on the session's thread.
_MAX_TEXTS = 10_000


def _marked(*, is_final: bool) -> bytes:
    marked = pb.ModelInferResponse()
    marked.parameters["triton_final_response"].bool_param = is_final
    return marked.SerializeToString()


_FINAL, _NOT_FINAL = _marked(is_final=True), _marked(is_final=False)


class Output(NamedTuple):
    """One tensor of a response."""

    name: str
    datatype: str
    array: Array


class RequestedOutput(NamedTuple):
    """An output that a request asks for; with `classes` set, its best classes as text."""

    name: str
    datatype: str
    classes: int | None = None


class ResponseEncoder:
    """Encodes the responses of one model.

    For equal outputs and shapes, everything but the id and the contents is the same; it is encoded
    once and remembered. A protobuf message is the concatenation of its fields, in any order. Of
    numbers, the size of the contents is the same too, and with it the start of their field.
    """

    def __init__(self, model: str, version: str, *, max_bytes: int) -> None:
        self._model = model
        self._version = version
        self._max_bytes = max_bytes
        self._remembered: dict[tuple[Form, ...], _Remembered] = {}

    def encode(self, request_id: str, outputs: Sequence[Output]) -> bytes:
        """A `ModelInferResponse`, its tensors as raw contents in the order of `outputs`."""
        key = tuple([(name, datatype, array.shape) for name, datatype, array in outputs])
        known = self._remembered.get(key) or self._remember(key)
        pieces = [known.prefix]
        if request_id:
            pieces += _field(_RESPONSE_ID, request_id.encode())
        for (_, _, array), start in zip(outputs, known.starts, strict=True):
            if start is None:
                pieces += _field(_RESPONSE_RAW, to_raw(array))
            else:
                pieces.append(start)
                pieces.append(to_raw(array))
        return self.checked(b"".join(pieces))

    def encode_requested(
        self,
        request_id: str,
        requested: Sequence[RequestedOutput],
        labels: Mapping[str, Sequence[str]],
        outputs: Mapping[str, Array],
    ) -> bytes:
        """A `ModelInferResponse` of the requested outputs; `labels`: one text a class, by name."""
        encoded = []
        for name, datatype, classes in requested:
            if classes is None:
                encoded.append(Output(name, datatype, outputs[name]))
            else:
                texts = classify(outputs[name], classes, labels.get(name))
                encoded.append(Output(name, "BYTES", texts))
        return self.encode(request_id, encoded)

    def checked(self, message: bytes) -> bytes:
        """The bytes of any response of the model, unless a client would refuse to read them."""
        if len(message) > self._max_bytes:
            raise ResponseTooLarge(
                f"the answer has {len(message)} bytes, the limit is {self._max_bytes} "
                "(--max-message-bytes)"
            )
        return message

    def _remember(self, key: tuple[Form, ...]) -> "_Remembered":
        response = pb.ModelInferResponse(model_name=self._model, model_version=self._version)
        for name, datatype, shape in key:
            response.outputs.add(name=name, datatype=datatype, shape=shape)
        known = _Remembered(response.SerializeToString(), [_raw_start(form) for form in key])
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        return self._remembered.setdefault(key, known)


class _Remembered(NamedTuple):
    """The parts of a response that its outputs' forms decide.

    Attributes:
        prefix: every field but the id and the contents.
        starts: of each output's field of contents; None for texts.
    """

    prefix: bytes
    starts: Sequence[bytes | None]


def _raw_start(form: Form) -> bytes | None:
    """The key and the size of the field of an output's contents, if their size is known."""
    _, datatype, shape = form
    if datatype == "BYTES":
        return None
    size = math.prod(shape) * DATATYPES[datatype].dtype.itemsize
    return b"".join(_field_start(_RESPONSE_RAW, size))


def as_streamed(response: bytes, *, is_final: bool = True) -> bytes:
    """As a `ModelStreamInferResponse`; `is_final`: whether it is the request's last one."""
    whole = response + (_FINAL if is_final else _NOT_FINAL)
    return b"".join(_field(_STREAMED_RESPONSE, whole))


def classify(array: Array, count: int, labels: Sequence[str] | None) -> Array:
    """The `classification` extension: the largest values of each row as `value:index:label`.

    Args:
        array: (…, classes) of numbers; a single axis is one row.
        count: classes to return; more than there are means all.
        labels: one a class, or None to leave the label out.

    Returns:
        (…, count) of `bytes`, best first.
    """
    texts_wanted = array.size // array.shape[-1] * min(count, array.shape[-1]) if array.size else 0
    check_classes(texts_wanted)
    best = _best(array, count)
    values = np.take_along_axis(array, best, axis=-1)
    texts = np.empty(best.shape, object)
    for position in np.ndindex(best.shape):
        index = int(best[position])
        label = f":{labels[index]}" if labels and index < len(labels) else ""
        texts[position] = f"{float(values[position]):f}:{index}{label}".encode()
    return texts


def rank(
    probabilities: Array, count: int, labels: Sequence[str] | None
) -> Iterator[list[tasks_pb.ClassifyResponse.Class]]:
    """The best classes of each row, as messages of the task calls.

    Args:
        probabilities: (rows, classes).
        count: classes of a row; more than there are means all.
        labels: one a class, or None to leave the label out.
    """
    best = _best(probabilities, count)
    values = np.take_along_axis(probabilities, best, axis=-1)
    for row, row_values in zip(best.tolist(), values.tolist(), strict=True):
        yield [
            tasks_pb.ClassifyResponse.Class(
                label=labels[index] if labels and index < len(labels) else "",
                index=index,
                probability=value,
            )
            for index, value in zip(row, row_values, strict=True)
        ]


def check_classes(count: int) -> None:
    """Refuse a request for more classes than may occupy a thread."""
    if count > _MAX_TEXTS:
        raise InvalidRequest(
            f"classification: expected at most {_MAX_TEXTS} classes in all, got {count}"
        )


def _best(array: Array, count: int) -> NDArray[np.intp]:
    """The indices of each row's largest values, best first; the lower index wins a tie."""
    return np.argsort(-array.astype(np.float64), axis=-1, kind="stable")[..., :count]


def _field(number: int, data: bytes) -> tuple[bytes, bytes, bytes]:
    """A length-delimited field of a protobuf message, in pieces."""
    return *_field_start(number, len(data)), data


def _field_start(number: int, size: int) -> tuple[bytes, bytes]:
    """The key and the size of a length-delimited field."""
    return bytes((number << 3 | 2,)), _varint(size)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
