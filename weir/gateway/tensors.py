"""Inference over HTTP: JSON and binary tensors to the protocol's messages, and back.

The Open Inference Protocol's HTTP form, with its binary tensor extension: with the header
`Inference-Header-Content-Length: N`, the first N bytes of a body are JSON, and the contents of
tensors that have a `binary_data_size` follow in their order. With 0, the body is the contents of
the model's only input.

No I/O. JSON numbers become raw bytes here, so the servers take one path for both forms.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from weir.client.errors import Internal, InvalidArgument, Unimplemented
from weir.client.rpc import get_parameter, set_parameter
from weir.gateway.body import json_object, kind_of
from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES, from_raw, to_raw

HEADER_LENGTH = "Inference-Header-Content-Length"

# The path names the model; KServe's client names it in the body too, and is not refused for that.
_REQUEST_FIELDS = {"id", "parameters", "inputs", "outputs", "model_name", "model_version"}
_INPUT_FIELDS = {"name", "shape", "datatype", "parameters", "data"}
_OUTPUT_FIELDS = {"name", "parameters"}
_MAX_DIMENSION = 2**63 - 1
# As of the server and of numpy. The product of many large axes would take minutes.
_MAX_AXES = 32
_BINARY = "binary_data"
_ALL_BINARY = "binary_data_output"
_SIZE = "binary_data_size"
_SHARED_MEMORY = "shared_memory_region"
# By datatype, its code in `struct`; BF16 by way of FP32.
_CODES = {
    "BOOL": "?", "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i",
    "UINT32": "I", "INT64": "q", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d", "BF16": "f",
}  # fmt: skip
# Datatypes whose JSON values are not packed as they come.
_CHECKED = {"BOOL", "BF16", "BYTES"}
_BOOLEANS = (frozenset({bool}), "booleans")
_WHOLE = (frozenset({int}), "whole numbers")
_NUMBERS = (frozenset({int, float}), "numbers")
_STRINGS = (frozenset({str}), "strings")
# By datatype, what its JSON values are.
_KINDS = {
    "BOOL": _BOOLEANS, "INT8": _WHOLE, "UINT8": _WHOLE, "INT16": _WHOLE, "UINT16": _WHOLE,
    "INT32": _WHOLE, "UINT32": _WHOLE, "INT64": _WHOLE, "UINT64": _WHOLE, "FP16": _NUMBERS,
    "FP32": _NUMBERS, "FP64": _NUMBERS, "BF16": _NUMBERS, "BYTES": _STRINGS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WantedForm:
    """Which outputs a request wants in binary form.

    Attributes:
        default: of an output that is not named.
        by_name: of the outputs that are.
    """

    default: bool
    by_name: Mapping[str, bool]

    def is_binary(self, output: str) -> bool:
        """Whether an output is sent in binary form."""
        return self.by_name.get(output, self.default)


def read_request(
    model: str, version: str, body: bytes, header_length: str | None
) -> tuple[pb.ModelInferRequest, WantedForm]:
    """The message of an inference request, and the form of its answer.

    Args:
        header_length: value of the header Inference-Header-Content-Length, None without it.

    Raises:
        InvalidArgument: it is no such request; names the field.
    """
    json_bytes, binary = _parts(body, header_length)
    content = json_object(json_bytes)
    _check_fields(content, _REQUEST_FIELDS, "")
    message = pb.ModelInferRequest(
        model_name=model, model_version=version, id=_text(content.get("id") or "", "id")
    )
    may_hold_booleans = b"true" in json_bytes or b"false" in json_bytes
    parameters = _object(content.get("parameters"), "parameters")
    default = _flag(parameters.pop(_ALL_BINARY, False), f"parameters.{_ALL_BINARY}")
    _set_parameters(message.parameters, parameters, "parameters")
    position = 0
    for index, tensor in enumerate(_array(content.get("inputs"), "inputs")):
        where = f"inputs[{index}]"
        position = _read_input(
            message, tensor, where, binary, position, may_hold_booleans=may_hold_booleans
        )
    if position != len(binary):
        raise InvalidArgument(
            f"body: expected {position} bytes of binary data ({_SIZE} of the inputs), "
            f"got {len(binary)}"
        )
    by_name = {}
    for index, output in enumerate(_array(content.get("outputs") or [], "outputs")):
        where = f"outputs[{index}]"
        fields = _object(output, where, is_required=True)
        _check_fields(fields, _OUTPUT_FIELDS, where)
        name = _text(fields.get("name"), f"{where}.name")
        wanted = _object(fields.get("parameters"), f"{where}.parameters")
        by_name[name] = _flag(wanted.pop(_BINARY, default), f"{where}.parameters.{_BINARY}")
        requested = message.outputs.add(name=name)
        _set_parameters(requested.parameters, wanted, f"{where}.parameters")
    return message, WantedForm(default, by_name)


def read_raw_request(
    model: str, version: str, body: bytes, metadata: pb.ModelMetadataResponse
) -> tuple[pb.ModelInferRequest, WantedForm]:
    """The message of a body that is the contents of the model's only input, and nothing else.

    The body's size gives the one axis whose size the model leaves open; if it leaves several open,
    the first is one row. BYTES are one element. All outputs are wanted in binary form.

    Raises:
        InvalidArgument: the model or the body leaves the shape open.
    """
    if len(metadata.inputs) != 1:
        names = ", ".join(tensor.name for tensor in metadata.inputs)
        raise InvalidArgument(
            f"{HEADER_LENGTH}: 0 is for a model of one input, {metadata.name} has {names}"
        )
    tensor = metadata.inputs[0]
    shape = list(tensor.shape)
    if tensor.datatype == "BYTES":
        shape = [1 if size < 0 else size for size in shape]
        body = len(body).to_bytes(4, "little") + body
        is_whole = math.prod(shape) == 1
    else:
        if shape.count(-1) > 1:
            shape[shape.index(-1)] = 1
        row_bytes = DATATYPES[tensor.datatype].dtype.itemsize * abs(math.prod(shape))
        is_whole = row_bytes > 0 and len(body) % row_bytes == 0 and shape.count(-1) < 2
        shape = [len(body) // max(row_bytes, 1) if size < 0 else size for size in shape]
    if not is_whole:
        raise InvalidArgument(
            f"body: expected the contents of {tensor.name}, {tensor.datatype} "
            f"{list(tensor.shape)}, whose shape its bytes tell; got {len(body)} bytes"
        )
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
    message.raw_input_contents.append(body)
    return message, WantedForm(default=True, by_name={})


def write_response(response: pb.ModelInferResponse, form: WantedForm) -> tuple[bytes, int | None]:
    """The body of an answer, and the bytes of its JSON if binary contents follow it.

    Raises:
        InvalidArgument: an output cannot be written as JSON.
        Internal: the response breaks the protocol.
    """
    if len(response.outputs) != len(response.raw_output_contents):
        raise Internal(
            f"expected raw contents of {len(response.outputs)} outputs, "
            f"got {len(response.raw_output_contents)}"
        )
    outputs: list[dict[str, Any]] = []
    contents: list[bytes] = []
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        parameters: dict[str, Any] = {}
        if tensor.parameters:
            parameters |= {name: get_parameter(value) for name, value in tensor.parameters.items()}
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if form.is_binary(tensor.name):
            parameters[_SIZE] = len(raw)
            contents.append(raw)
        else:
            output["data"] = _json_values(tensor.name, tensor.datatype, tensor.shape, raw)
        if parameters:
            output["parameters"] = parameters
        outputs.append(output)
    content: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
    }
    if response.id:
        content["id"] = response.id
    if response.parameters:
        content["parameters"] = {
            name: get_parameter(value) for name, value in response.parameters.items()
        }
    content["outputs"] = outputs
    header = _dumps(content)
    if not contents:
        return header, None
    return b"".join((header, *contents)), len(header)


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body, and the binary contents behind it."""
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isdecimal() and len(header_length) < 20):
        raise InvalidArgument(
            f"{HEADER_LENGTH}: expected a number of bytes, got {header_length[:64]!r}"
        )
    length = int(header_length)
    if length > len(body):
        raise InvalidArgument(
            f"{HEADER_LENGTH}: expected at most the {len(body)} bytes of the body, got {length}"
        )
    return body[:length], memoryview(body)[length:]


def _read_input(
    message: pb.ModelInferRequest,
    tensor: object,
    where: str,
    binary: memoryview,
    position: int,
    *,
    may_hold_booleans: bool,
) -> int:
    """Add an input to the message; returns the position behind its binary contents."""
    fields = _object(tensor, where, is_required=True)
    _check_fields(fields, _INPUT_FIELDS, where)
    name = _text(fields.get("name"), f"{where}.name")
    where = f"{where} ({name[:64]!r})"
    datatype = fields.get("datatype")
    if not (isinstance(datatype, str) and datatype in DATATYPES):
        known = ", ".join(DATATYPES)
        raise InvalidArgument(f"{where}.datatype: expected one of {known}, got {_brief(datatype)}")
    shape = _shape(fields.get("shape"), f"{where}.shape")
    parameters = _object(fields.get("parameters"), f"{where}.parameters")
    size = parameters.pop(_SIZE, None)
    data = fields.get("data")
    if (size is None) == (data is None):
        if _SHARED_MEMORY in parameters:
            raise Unimplemented(f"{where}: shared memory is not offered")
        raise InvalidArgument(
            f"{where}: expected either data or the parameter {_SIZE}, got "
            f"{'none' if size is None else 'both'}"
        )
    if size is None:
        raw = _raw_of_json(
            data, datatype, shape, f"{where}.data", may_hold_booleans=may_hold_booleans
        )
        end = position
    else:
        if not _is_integer(size) or not 0 <= size <= len(binary) - position:
            raise InvalidArgument(
                f"{where}.parameters.{_SIZE}: expected a number of bytes, at most the "
                f"{len(binary) - position} that are left, got {_brief(size)}"
            )
        end = position + size
        raw = bytes(binary[position:end])
    added = message.inputs.add(name=name, datatype=datatype, shape=shape)
    _set_parameters(added.parameters, parameters, f"{where}.parameters")
    message.raw_input_contents.append(raw)
    return end


def _raw_of_json(
    data: object, datatype: str, shape: list[int], where: str, *, may_hold_booleans: bool
) -> bytes:
    """JSON values, flat or nested, as raw bytes."""
    if not isinstance(data, list):
        raise InvalidArgument(f"{where}: expected an array, got {kind_of(data)}")
    # The usual case: a flat array of numbers that fit. `struct` would take booleans for numbers.
    raw = None if may_hold_booleans or datatype in _CHECKED else _packed(data, datatype)
    if raw is None:
        data = _even(data, where)
        raw = _checked(data, datatype, where)
    if len(data) != math.prod(shape):
        raise InvalidArgument(
            f"{where}: expected {math.prod(shape)} values of shape {shape}, got {len(data)}"
        )
    return raw


def _packed(values: list[Any], datatype: str) -> bytes | None:
    """Numbers as raw bytes, twice as fast as by numpy; None if one is another thing or too large.

    BF16 is packed as FP32.
    """
    try:
        return struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)
    except (struct.error, OverflowError):
        return None


def _checked(values: list[Any], datatype: str, where: str) -> bytes:
    """JSON values as raw bytes; InvalidArgument names a value that the datatype cannot hold."""
    kinds, expected = _KINDS[datatype]
    if not kinds.issuperset(map(type, values)):
        wrong = next(value for value in values if type(value) not in kinds)
        got = _brief(wrong) if type(wrong) is float else kind_of(wrong)
        raise InvalidArgument(f"{where}: expected {expected} ({datatype}), got {got}")
    if datatype == "BYTES":
        try:
            return to_raw(np.array(values, object))
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"{where}: expected Unicode text: {error.reason}") from error
    raw = _packed(values, datatype)
    if raw is not None and datatype == "BF16":
        raw = _bfloat16(np.frombuffer(raw, "<f4"))
    if raw is None:
        wrong = next(value for value in values if _packed([value], datatype) is None)
        raise InvalidArgument(
            f"{where}: expected values that {datatype} can hold, got {_brief(wrong)}"
        )
    return raw


def _even(data: list[Any], where: str) -> list[Any]:
    """The values of nested arrays of even lengths in their order, level by level."""
    level = data
    while list in (kinds := set(map(type, level))):
        if len(kinds) > 1 or len(set(map(len, level))) > 1:
            raise InvalidArgument(f"{where}: expected an even array")
        level = list(chain.from_iterable(level))
    return level


def _bfloat16(array: NDArray[np.float32]) -> bytes | None:
    """The upper halves of float32 values, rounded to the nearest; None if one is too large.

    Ties are rounded to even.
    """
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    halves = np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")
    is_too_large = np.isfinite(array) & (halves & 0x7FFF == 0x7F80)
    return None if is_too_large.any() else halves.tobytes()


def _json_values(name: str, datatype: str, shape: Iterable[int], raw: bytes) -> Any:
    """The values of an output, flat, as orjson takes them."""
    try:
        array = from_raw(raw, datatype, (math.prod(shape),))
    except (KeyError, ValueError) as error:
        raise Internal(f"output {name!r}: {error}") from error
    if datatype == "BYTES":
        try:
            return [element.decode() for element in array]
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"output {name!r}: its strings are not UTF-8; ask for them with the parameter "
                f"{_BINARY}"
            ) from error
    if datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _dumps(content: dict[str, Any]) -> bytes:
    """JSON; values that are not finite as Python writes them, since JSON has no word for them."""
    arrays = [output["data"] for output in content["outputs"] if "data" in output]
    if all(
        not isinstance(array, np.ndarray) or array.dtype.kind != "f" or np.isfinite(array).all()
        for array in arrays
    ):
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(content, default=lambda array: array.tolist()).encode()


def _check_fields(fields: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := fields.keys() - known:
        name = min(unknown)
        place = f"{where}.{name}" if where else name
        raise InvalidArgument(
            f"{place[:128]}: expected one of {', '.join(sorted(known))}, got another field"
        )


def _object(value: object, where: str, *, is_required: bool = False) -> dict[str, Any]:
    """A JSON object as a copy; an absent one is empty."""
    if value is None and not is_required:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}: expected an object, got {kind_of(value)}")
    return dict(value)


def _array(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidArgument(f"{where}: expected an array, got {kind_of(value)}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{where}: expected a string, got {kind_of(value)}")
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where}: expected a boolean, got {kind_of(value)}")
    return value


def _brief(value: object) -> str:
    """A value for a message; an array or an object, which may be deep and large, by its kind."""
    if isinstance(value, str):
        return repr(value[:64])
    return f"{value!r:.64}" if isinstance(value, int | float) else kind_of(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shape(value: object, where: str) -> list[int]:
    shape = _array(value, where)
    if len(shape) > _MAX_AXES:
        raise InvalidArgument(f"{where}: expected at most {_MAX_AXES} axes, got {len(shape)}")
    for size in shape:
        if not _is_integer(size) or not 0 <= size <= _MAX_DIMENSION:
            raise InvalidArgument(f"{where}: expected numbers from 0, got {_brief(size)}")
    return shape


def _set_parameters(target: Any, parameters: Mapping[str, Any], where: str) -> None:
    for name, value in parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise InvalidArgument(
                f"{where}.{name[:64]}: expected a boolean, a number or a string, "
                f"got {kind_of(value)}"
            )
        try:
            set_parameter(target[name], value)
        except ValueError as error:
            raise InvalidArgument(f"{where}.{name[:64]}: expected 64 bits, got more") from error
