"""Request decoding and validation: the bytes of protobuf messages → numpy.

Rules:
- Numbers that arrive as raw bytes are viewed, never copied.
- Shape, count and size are compared before elements are read.
- Unknown request parameters are ignored; reserved and unsupported ones are refused.
- Every function raises InvalidRequest for a message that does not fit, and Unsupported for a
  feature that this server leaves out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES, Datatype, from_raw
from weir.server.errors import InvalidRequest, Unsupported
from weir.server.protocol.message_limits import (
    INLINE_ELEMENTS,
    check_counts,
    check_small,
    has_few_parts,
)
from weir.server.protocol.response_encoder import RequestedOutput
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import MAX_RANK, Fit, Form, Signature

Array = NDArray[Any]
M = TypeVar("M", bound=Message)

INLINE_BYTES = 256 * 1024
"""A larger message is parsed by a worker: megabytes take milliseconds."""

_BF16_EXPONENT = 0x7F80
MAX_ID_CHARACTERS = 256
_MAX_PARAMETERS = 64
_MAX_REMEMBERED = 256
_UNKNOWN_TENSORS = 64
_PART = 32_768
_MAX_TIMEOUT_US = 86_400 * 1_000_000
_MAX_PRIORITY = 2**32 - 1
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY = "shared_memory_"
_EMPTY_FINAL = "triton_enable_empty_final_response"

Parameters = Mapping[str, pb.InferParameter]


class DecodedRequest(NamedTuple):
    """A request's tensors, checked against its model.

    Attributes:
        inputs: by name, with the inputs that the server fills in.
        fit: their rows, batch key and length.
    """

    inputs: dict[str, Array]
    fit: Fit
    timeout_s: float | None


def parse_request(payload: bytes) -> pb.ModelInferRequest:
    """A request from its bytes."""
    check_counts(payload)
    return parse_message(pb.ModelInferRequest, payload)


def parse_inline(payload: bytes) -> pb.ModelInferRequest | None:
    """Parse a request that takes little time to decode; None for another, which takes a worker."""
    if len(payload) > INLINE_BYTES or not has_few_parts(payload):
        return None
    message = parse_message(pb.ModelInferRequest, payload)
    # A text takes four bytes or more.
    if len(payload) > 4 * INLINE_ELEMENTS and _python_elements(message) > INLINE_ELEMENTS:
        return None
    return message


def parse_message(message_type: type[M], payload: bytes) -> M:
    """Parse a message of one type."""
    try:
        return message_type.FromString(payload)
    except DecodeError:
        raise InvalidRequest(f"the message is no valid {message_type.DESCRIPTOR.name}") from None


def parse_small(message_type: type[M], payload: bytes) -> M:
    """Parse a message that carries no data; a large one is refused before it is parsed."""
    check_small(payload)
    return parse_message(message_type, payload)


def decode_request(
    message: pb.ModelInferRequest, signature: Signature, rules: SequenceRules, *, finite_only: bool
) -> DecodedRequest:
    """Decode a message's tensors and check them against the model's signature and rules.

    With `finite_only`, NaN and infinity are refused.
    """
    timeout_s = read_timeout_s(message.parameters)
    field = message.inputs
    check_count("inputs", len(field), len(signature.inputs))
    # A copy: a loop over the field itself ends with an IndexError, whose message protobuf formats.
    tensors = field[:]
    for tensor in tensors:
        if tensor.parameters:
            check_input(tensor.name, tensor.parameters)
    sent = forms(tensors)
    fit = signature.admit(sent)
    inputs = decode_inputs(tensors, sent, message.raw_input_contents[:])
    rules.complete(inputs)
    rules.check(inputs)
    if finite_only:
        check_finite(inputs, sent)
    return DecodedRequest(inputs, fit, timeout_s)


def requested_outputs(
    message: pb.ModelInferRequest,
    signature: Signature,
    remembered: dict[tuple[str, ...], Sequence[RequestedOutput]],
) -> Sequence[RequestedOutput]:
    """The outputs that a message names.

    Args:
        remembered: results for earlier messages without parameters, by names; it is extended. A
            client asks for the same outputs in every request.
    """
    check_count("outputs", len(message.outputs), len(signature.outputs))
    outputs = message.outputs[:]
    names = tuple([output.name for output in outputs])
    has_parameters = any(output.parameters for output in outputs)
    if not has_parameters and (known := remembered.get(names)) is not None:
        return known
    signature.check_outputs(names)
    requested = []
    for output in outputs:
        classes = read_classification(output.name, output.parameters)
        spec = signature.outputs[output.name]
        if classes is not None and (spec.datatype in ("BYTES", "BOOL", "BF16") or not spec.axes):
            raise InvalidRequest(f"output {output.name!r}: classification needs axes of numbers")
        requested.append(RequestedOutput(output.name, spec.datatype, classes))
    # The number of orders in which clients may name the outputs has no useful bound.
    if not has_parameters and len(remembered) < _MAX_REMEMBERED:
        remembered[names] = requested
    return requested


def check_count(what: str, count: int, known: int) -> None:
    """Refuse far more tensors than the model has, before an object is made of each.

    A few too many are refused by their names instead.
    """
    if count > known + _UNKNOWN_TENSORS:
        raise InvalidRequest(f"{what}: expected at most {known}, got {count}")


def forms(tensors: Iterable[pb.ModelInferRequest.InferInputTensor]) -> tuple[Form, ...]:
    """Name, datatype and shape of each input."""
    return tuple([_form(tensor) for tensor in tensors])


def decode_inputs(
    tensors: Sequence[pb.ModelInferRequest.InferInputTensor],
    forms: tuple[Form, ...],
    raw: Sequence[bytes],
) -> dict[str, Array]:
    """The elements of a request's tensors, whose forms the model's signature has admitted.

    Args:
        raw: the raw contents, one for each tensor; or none.
    """
    if not raw:
        return {
            form[0]: _decode_typed(form, tensor.contents)
            for form, tensor in zip(forms, tensors, strict=True)
        }
    if len(raw) != len(forms):
        raise InvalidRequest(
            f"raw_input_contents: expected {len(forms)} entries, one an input, got {len(raw)}"
        )
    for tensor in tensors:
        if tensor.HasField("contents"):
            raise InvalidRequest(
                f"input {tensor.name!r}: contents and raw_input_contents are both set"
            )
    return {form[0]: _decode_raw(form, data) for form, data in zip(forms, raw, strict=True)}


def check_finite(inputs: Mapping[str, Array], forms: tuple[Form, ...]) -> None:
    """Refuse NaN and infinity."""
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


def check_id(request_id: str) -> None:
    """Refuse ids that are too long for a log line, or not printable."""
    if len(request_id) > MAX_ID_CHARACTERS:
        raise InvalidRequest(
            f"id: expected at most {MAX_ID_CHARACTERS} characters, got {len(request_id)}"
        )
    if not request_id.isprintable():
        raise InvalidRequest("id: expected printable characters, got others")


def read_timeout_s(parameters: Parameters) -> float | None:
    """Check a request's parameters; the time to wait and run that `timeout` leaves it, or None."""
    if not parameters:
        return None
    _check_count(parameters)
    timeout_s = None
    for key, parameter in parameters.items():
        if key in _SEQUENCE:
            _refuse_sequence(key, parameter)
        elif key == "timeout":
            timeout_s = _integer(key, parameter, _MAX_TIMEOUT_US) / 1e6 or None
        elif key == "priority":
            _integer(key, parameter, _MAX_PRIORITY)
        elif key == _EMPTY_FINAL:
            _expect(key, parameter, "bool_param")
        elif key.startswith("triton_"):
            raise InvalidRequest(f"parameter {key[:64]!r} is reserved")
        elif key.startswith(_SHARED_MEMORY):
            raise Unsupported("shared memory is not offered")
    return timeout_s


def check_input(name: str, parameters: Parameters) -> None:
    """Refuse parameters that are not supported on an input."""
    _check_tensor_parameters(f"input {name!r}", parameters)


def read_classification(name: str, parameters: Parameters) -> int | None:
    """The number of classes to send instead of an output's tensor, as text; None if unset."""
    _check_tensor_parameters(f"output {name!r}", parameters)
    parameter = parameters.get("classification")
    if parameter is None:
        return None
    count = _integer("classification", parameter, 2**31 - 1)
    if count < 1:
        raise InvalidRequest(f"output {name!r}: classification: expected 1 or more, got {count}")
    return count


def read_integer(parameters: Parameters, key: str, least: int, most: int) -> int | None:
    """A request's parameter that is a whole number; None if it is absent."""
    if key not in parameters:
        return None
    value = _integer(key, parameters[key], most)
    if value < least:
        raise InvalidRequest(f"parameter {key!r}: expected {least} to {most}, got {value}")
    return value


def read_number(parameters: Parameters, key: str, least: float, most: float) -> float | None:
    """A request's parameter that is a number, whole or not; None if it is absent."""
    if key not in parameters:
        return None
    kind = _expect(key, parameters[key], "double_param", "int64_param", "uint64_param")
    value = float(getattr(parameters[key], kind))
    if not least <= value <= most:
        raise InvalidRequest(f"parameter {key!r}: expected {least:g} to {most:g}, got {value:g}")
    return value


def _python_elements(message: pb.ModelInferRequest) -> int:
    """Declared elements that are decoded one by one: texts, and all that are not raw."""
    is_raw = len(message.raw_input_contents) > 0
    elements = 0
    for tensor in message.inputs:
        if (not is_raw or tensor.datatype == "BYTES") and len(tensor.shape) <= MAX_RANK:
            elements += math.prod(tensor.shape)
    return elements


def _form(tensor: pb.ModelInferRequest.InferInputTensor) -> Form:
    shape = tensor.shape[:]
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
        return _numbers(values, row.dtype)
    wide = _numbers(values, np.dtype(np.uint64 if row.dtype.kind == "u" else np.int64))
    bounds = np.iinfo(row.dtype.str)
    if wide.size and not (bounds.min <= wide.min() and wide.max() <= bounds.max):
        raise InvalidRequest(
            f"input {name!r}: expected {row.name} values from {bounds.min} to {bounds.max}, "
            f"got {int(wide.min())} to {int(wide.max())}"
        )
    return wide.astype(row.dtype)


def _numbers(values: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    """Typed elements as an array, in parts: numpy holds the interpreter lock for each part."""
    if len(values) <= _PART:
        return np.array(values, dtype)
    array = np.empty(len(values), dtype)
    for start in range(0, len(values), _PART):
        array[start : start + _PART] = values[start : start + _PART]
    return array


def _checked_bool(name: str, array: Array) -> Array:
    if array.size and array.view(np.uint8).max() > 1:
        raise InvalidRequest(f"input {name!r}: a BOOL is a byte 0 or 1, got another value")
    return array


def _text(name: str, array: Any) -> Array:
    """The elements as text, as ONNX strings are text; bytes that are none are refused."""
    texts = np.empty(array.size, object)
    flat = array.ravel().tolist()
    try:
        texts[:] = [str(element, "utf-8") for element in flat]
    except UnicodeDecodeError:
        position = next(at for at, element in enumerate(flat) if not _is_utf8(element))
        where = tuple(map(int, np.unravel_index(position, array.shape)))
        raise InvalidRequest(
            f"input {name!r}: element {where} is no valid UTF-8, as ONNX strings must be"
        ) from None
    return texts.reshape(array.shape)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_count(parameters: Parameters) -> None:
    if len(parameters) > _MAX_PARAMETERS:
        raise InvalidRequest(
            f"expected at most {_MAX_PARAMETERS} parameters, got {len(parameters)}"
        )


def _check_tensor_parameters(where: str, parameters: Parameters) -> None:
    _check_count(parameters)
    if any(key.startswith(_SHARED_MEMORY) for key in parameters):
        raise Unsupported(f"{where}: shared memory is not offered")


def _expect(key: str, parameter: pb.InferParameter, *kinds: str) -> str:
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in kinds:
        raise InvalidRequest(f"parameter {key!r}: expected {' or '.join(kinds)}, got {kind}")
    return str(kind)


def _integer(key: str, parameter: pb.InferParameter, most: int) -> int:
    kind = _expect(key, parameter, "int64_param", "uint64_param")
    value = parameter.int64_param if kind == "int64_param" else parameter.uint64_param
    if not 0 <= value <= most:
        raise InvalidRequest(f"parameter {key!r}: expected 0 to {most}, got {value}")
    return value


def _refuse_sequence(key: str, parameter: pb.InferParameter) -> None:
    """Refuse a stateful sequence; id 0 or "" and false flags mean that there is none."""
    kind = _expect(key, parameter, "int64_param", "uint64_param", "string_param", "bool_param")
    if getattr(parameter, kind):
        raise Unsupported("stateful sequences are not offered")
