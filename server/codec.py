"""Protobuf on one side, numpy on the other.

Rules:
- Numbers that arrive as raw bytes are viewed, never copied.
- Shape, count and size are compared before elements are read.
- Answers carry raw contents only: it is all the stock Python client reads.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from server.datatypes import DATATYPES, Datatype, from_raw, to_raw
from server.errors import InvalidRequest
from server.guard import check_counts
from server.pb import inference_pb2 as pb
from server.signature import MAX_RANK, Signature

Array = NDArray[Any]
InputTensor = pb.ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of an answer."""

    name: str
    datatype: str
    array: Array


def parse_request(payload: bytes) -> pb.ModelInferRequest:
    """A request from its bytes.

    Raises:
        InvalidRequest: not a `ModelInferRequest`, or one of absurdly many parts.
    """
    check_counts(payload)
    try:
        return pb.ModelInferRequest.FromString(payload)
    except DecodeError:
        raise InvalidRequest("the message is no valid ModelInferRequest") from None


def decode_inputs(request: pb.ModelInferRequest, signature: Signature) -> dict[str, Array]:
    """The request's tensors, each checked against the signature.

    Raises:
        InvalidRequest: anything about names, datatypes, shapes, sizes or contents is off.
    """
    tensors = request.inputs
    signature.check_names([tensor.name for tensor in tensors])
    raw = request.raw_input_contents
    if not raw:
        return {tensor.name: _decode_typed(tensor, signature) for tensor in tensors}
    if len(raw) != len(tensors):
        raise InvalidRequest(
            f"raw_input_contents: expected {len(tensors)} entries, one an input, got {len(raw)}"
        )
    arrays = {}
    for tensor, data in zip(tensors, raw, strict=True):
        name = tensor.name
        if tensor.HasField("contents"):
            raise InvalidRequest(f"input {name!r}: contents and raw_input_contents are both set")
        shape = _checked_shape(tensor, signature)
        try:
            arrays[name] = from_raw(data, tensor.datatype, shape)
        except ValueError as error:
            raise InvalidRequest(f"input {name!r}: {error}") from None
        if tensor.datatype == "BYTES":
            arrays[name] = _text(name, arrays[name])
        elif tensor.datatype == "BOOL":
            arrays[name] = _checked_bool(name, arrays[name])
    return arrays


def encode_response(
    model: str,
    version: str,
    request_id: str,
    outputs: Sequence[Output],
    parameters: Mapping[str, bool] | None = None,
) -> pb.ModelInferResponse:
    """An answer, its tensors as raw contents in the order of `outputs`."""
    response = pb.ModelInferResponse(model_name=model, model_version=version, id=request_id)
    for output in outputs:
        response.outputs.add(name=output.name, datatype=output.datatype, shape=output.array.shape)
        response.raw_output_contents.append(to_raw(output.array))
    for key, value in (parameters or {}).items():
        response.parameters[key].bool_param = value
    return response


def classify(array: Array, count: int, labels: Sequence[str] | None) -> Array:
    """The `classification` extension: the largest values of each row as `value:index:label`.

    Args:
        array: (…, classes) of numbers; a single axis is one row.
        count: how many classes to return; more than there are means all.
        labels: one a class, or None to leave the label out.

    Returns:
        (…, count) of `bytes`, best first.
    """
    best = np.argsort(-array.astype(np.float64), axis=-1, kind="stable")[..., :count]
    values = np.take_along_axis(array, best, axis=-1)
    texts = np.empty(best.shape, object)
    for position in np.ndindex(best.shape):
        index = int(best[position])
        label = f":{labels[index]}" if labels and index < len(labels) else ""
        texts[position] = f"{float(values[position]):f}:{index}{label}".encode()
    return texts


def _checked_shape(tensor: InputTensor, signature: Signature) -> tuple[int, ...]:
    if len(tensor.shape) > MAX_RANK:
        raise InvalidRequest(
            f"input {tensor.name!r}: expected at most {MAX_RANK} axes, got {len(tensor.shape)}"
        )
    shape = tuple(tensor.shape)
    signature.check_tensor(tensor.name, tensor.datatype, shape)
    return shape


def _decode_typed(tensor: InputTensor, signature: Signature) -> Array:
    shape = _checked_shape(tensor, signature)
    row = DATATYPES[tensor.datatype]
    count = math.prod(shape)
    contents = tensor.contents
    filled = [field.name for field, _ in contents.ListFields()]
    if row.contents is None and count:
        raise InvalidRequest(
            f"input {tensor.name!r}: {row.name} travels only as raw_input_contents"
        )
    if filled not in ([], [row.contents]):
        raise InvalidRequest(
            f"input {tensor.name!r}: {row.name} belongs in {row.contents}, got {filled}"
        )
    values = getattr(contents, row.contents) if row.contents else ()
    if len(values) != count:
        raise InvalidRequest(f"input {tensor.name!r}: expected {count} elements, got {len(values)}")
    return _typed_array(tensor.name, row, values).reshape(shape)


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
