"""Requests: the bytes of protobuf messages → numpy. The way back is `response`.

Rules:
- Numbers that arrive as raw bytes are viewed, never copied.
- Shape, count and size are compared before elements are read.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES, Datatype, from_raw
from weir.server.errors import InvalidRequest
from weir.server.protocol.message_limits import check_counts
from weir.server.runtime.signature import MAX_RANK, Form

Array = NDArray[Any]
M = TypeVar("M", bound=Message)

_BF16_EXPONENT = 0x7F80


def parse_request(payload: bytes) -> pb.ModelInferRequest:
    """A request from its bytes.

    Raises:
        InvalidRequest: not a `ModelInferRequest`, or one of absurdly many parts.
    """
    check_counts(payload)
    return parse_message(pb.ModelInferRequest, payload)


def parse_message(message_type: type[M], payload: bytes) -> M:
    """Parse a message of one type.

    Raises:
        InvalidRequest: the bytes are not such a message.
    """
    try:
        return message_type.FromString(payload)
    except DecodeError:
        name = message_type.DESCRIPTOR.name
        raise InvalidRequest(f"the message is no valid {name}") from None


def forms(request: pb.ModelInferRequest) -> tuple[Form, ...]:
    """Name, datatype and shape of each input, as far as their number of axes is sane.

    Raises:
        InvalidRequest: an input has more axes than any tensor could have.
    """
    return tuple([_form(tensor) for tensor in request.inputs])


def decode_inputs(request: pb.ModelInferRequest, forms: tuple[Form, ...]) -> dict[str, Array]:
    """The elements of the request's tensors.

    Args:
        request: whose elements are read.
        forms: of its inputs, admitted by the model's signature.

    Raises:
        InvalidRequest: sizes or contents are off.
    """
    raw = request.raw_input_contents
    if not raw:
        tensors = zip(forms, request.inputs, strict=True)
        return {form[0]: _decode_typed(form, tensor.contents) for form, tensor in tensors}
    if len(raw) != len(forms):
        raise InvalidRequest(
            f"raw_input_contents: expected {len(forms)} entries, one an input, got {len(raw)}"
        )
    for tensor in request.inputs:
        if tensor.HasField("contents"):
            raise InvalidRequest(
                f"input {tensor.name!r}: contents and raw_input_contents are both set"
            )
    return {form[0]: _decode_raw(form, data) for form, data in zip(forms, raw, strict=True)}


def check_finite(inputs: Mapping[str, Array], forms: tuple[Form, ...]) -> None:
    """Refuse NaN and infinity, for a model whose operator does not want them."""
    for name, datatype, _ in forms:
        array = inputs[name]
        if datatype == "BF16":
            is_finite = (array & _BF16_EXPONENT) != _BF16_EXPONENT
        elif array.dtype.kind == "f":
            is_finite = np.isfinite(array)
        else:
            continue
        if not is_finite.all():
            raise InvalidRequest(f"input {name!r}: expected finite numbers, got NaN or infinity")


def _form(tensor: pb.ModelInferRequest.InferInputTensor) -> Form:
    shape = tensor.shape
    if len(shape) > MAX_RANK:
        raise InvalidRequest(
            f"input {tensor.name[:64]!r}: expected at most {MAX_RANK} axes, got {len(shape)}"
        )
    return tensor.name, tensor.datatype, tuple(shape)


def _decode_raw(form: Form, data: bytes) -> Array:
    name, datatype, shape = form
    try:
        array = from_raw(data, datatype, shape)
    except ValueError as error:
        raise InvalidRequest(f"input {name!r}: {error}") from None
    if datatype == "BYTES":
        return _text(name, array)
    if datatype == "BOOL":
        return _checked_bool(name, array)
    return array


def _decode_typed(form: Form, contents: pb.InferTensorContents) -> Array:
    name, datatype, shape = form
    row = DATATYPES[datatype]
    count = math.prod(shape)
    filled = [field.name for field, _ in contents.ListFields()]
    if row.contents is None and count:
        raise InvalidRequest(f"input {name!r}: {row.name} travels only as raw_input_contents")
    if filled not in ([], [row.contents]):
        raise InvalidRequest(f"input {name!r}: {row.name} belongs in {row.contents}, got {filled}")
    values = getattr(contents, row.contents) if row.contents else ()
    if len(values) != count:
        raise InvalidRequest(f"input {name!r}: expected {count} elements, got {len(values)}")
    return _typed_array(name, row, values).reshape(shape)


def _typed_array(name: str, row: Datatype, values: Sequence[Any]) -> Array:
    if row.name == "BYTES":
        elements = np.empty(len(values), object)
        elements[:] = values
        return _text(name, elements)
    if row.dtype.kind not in "iu":
        return np.array(values, row.dtype)
    wide = np.array(values, np.uint64 if row.dtype.kind == "u" else np.int64)
    bounds = np.iinfo(row.dtype.str)
    if wide.size and not (bounds.min <= wide.min() and wide.max() <= bounds.max):
        raise InvalidRequest(
            f"input {name!r}: expected {row.name} values from {bounds.min} to {bounds.max}, "
            f"got {int(wide.min())} to {int(wide.max())}"
        )
    return wide.astype(row.dtype)


def _checked_bool(name: str, array: Array) -> Array:
    if array.size and array.view(np.uint8).max() > 1:
        raise InvalidRequest(f"input {name!r}: a BOOL is a byte 0 or 1, got another value")
    return array


def _text(name: str, array: Any) -> Array:
    """ONNX strings are text: bytes are decoded here, or refused."""
    texts = np.empty(array.shape, object)
    for position in np.ndindex(array.shape):
        try:
            text = str(array[position], "utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"input {name!r}: element {position} is no valid UTF-8") from None
        if "\0" in text:
            raise InvalidRequest(f"input {name!r}: element {position} holds a NUL character")
        texts[position] = text
    return texts
