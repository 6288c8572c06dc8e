"""Inference over HTTP: JSON and binary tensors to the protocol's messages, and back.

The Open Inference Protocol's HTTP form, with its binary tensor extension: with the header
`Inference-Header-Content-Length: N`, the first N bytes of a body are JSON, and the contents of
tensors that have a `binary_data_size` follow in their order.

No I/O. JSON numbers become raw bytes here, so the servers take one path for both forms.
"""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from weir.client.errors import Internal, InvalidArgument
from weir.client.rpc import get_parameter, set_parameter
from weir.gateway.body import json_object, kind_of
from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES, from_raw, to_raw

HEADER_LENGTH = "Inference-Header-Content-Length"

_REQUEST_FIELDS = {"id", "parameters", "inputs", "outputs"}
_INPUT_FIELDS = {"name", "shape", "datatype", "parameters", "data"}
_OUTPUT_FIELDS = {"name", "parameters"}
_MAX_DIMENSION = 2**63 - 1
# As of the server and of numpy. The product of many large axes would take minutes.
_MAX_AXES = 32
_BINARY = "binary_data"
_ALL_BINARY = "binary_data_output"
_SIZE = "binary_data_size"
# By datatype, its code in `struct`.
_CODES = {
    "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I",
    "INT64": "q", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
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
        model_name=model, model_version=version, id=_text(content.get("id", ""), "id")
    )
    parameters = _object(content.get("parameters"), "parameters")
    default = _flag(parameters.pop(_ALL_BINARY, False), f"parameters.{_ALL_BINARY}")
    _set_parameters(message.parameters, parameters, "parameters")
    position = 0
    for index, tensor in enumerate(_array(content.get("inputs"), "inputs")):
        position = _read_input(message, tensor, f"inputs[{index}]", binary, position)
    if position != len(binary):
        raise InvalidArgument(
            f"body: expected {position} bytes of binary data ({_SIZE} of the inputs), "
            f"got {len(binary)}"
        )
    by_name = {}
    for index, output in enumerate(_array(content.get("outputs", []), "outputs")):
        where = f"outputs[{index}]"
        fields = _object(output, where, is_required=True)
        _check_fields(fields, _OUTPUT_FIELDS, where)
        name = _text(fields.get("name"), f"{where}.name")
        wanted = _object(fields.get("parameters"), f"{where}.parameters")
        by_name[name] = _flag(wanted.pop(_BINARY, default), f"{where}.parameters.{_BINARY}")
        requested = message.outputs.add(name=name)
        _set_parameters(requested.parameters, wanted, f"{where}.parameters")
    return message, WantedForm(default, by_name)


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
    message: pb.ModelInferRequest, tensor: object, where: str, binary: memoryview, position: int
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
    if (size is None) == ("data" not in fields):
        raise InvalidArgument(
            f"{where}: expected either data or the parameter {_SIZE}, got "
            f"{'none' if size is None else 'both'}"
        )
    if size is None:
        raw = _raw_of_json(fields["data"], datatype, shape, f"{where}.data")
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


def _raw_of_json(data: object, datatype: str, shape: list[int], where: str) -> bytes:
    """JSON values, flat or nested, as raw bytes."""
    if not isinstance(data, list):
        raise InvalidArgument(f"{where}: expected an array, got {kind_of(data)}")
    if datatype == "BYTES":
        texts = list(_flat(data))
        for text in texts:
            if not isinstance(text, str):
                raise InvalidArgument(f"{where}: expected strings, got {kind_of(text)}")
        try:
            raw = to_raw(np.array(texts, object))
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"{where}: expected Unicode text: {error.reason}") from error
        count = len(texts)
    elif (packed := _packed(data, datatype)) is not None:
        raw, count = packed, len(data)
    else:
        array = _numbers(data, datatype, where)
        raw, count = array.tobytes(), array.size
    if count != math.prod(shape):
        raise InvalidArgument(
            f"{where}: expected {math.prod(shape)} values of shape {shape}, got {count}"
        )
    return raw


def _packed(data: list[Any], datatype: str) -> bytes | None:
    """A flat list of numbers that fit as raw bytes, twice as fast as by numpy; None for others."""
    code = _CODES.get(datatype)
    if code is None:
        return None
    try:
        return struct.pack(f"<{len(data)}{code}", *data)
    except (struct.error, OverflowError):
        return None


def _numbers(data: list[Any], datatype: str, where: str) -> NDArray[np.generic]:
    """JSON numbers as an array of the datatype; a value that it cannot hold is an error."""
    dtype = DATATYPES[datatype].dtype
    # numpy finds the type by itself too, but one long string would make every element as long.
    values = _even(data, where)
    is_float = dtype.kind == "f" or datatype == "BF16"
    expected: set[type] = {bool} if datatype == "BOOL" else {int, float} if is_float else {int}
    if wrong := set(map(type, values)) - expected:
        kinds = min(kind_of(kind()) for kind in wrong)
        raise InvalidArgument(f"{where}: expected values of {datatype}, got {kinds}")
    if is_float:
        try:
            array = np.array(values, np.float64)
        except OverflowError as error:
            raise InvalidArgument(f"{where}: expected values of {datatype}, got others") from error
        with np.errstate(over="ignore"):
            return (
                _bfloat16(array.astype(np.float32)) if datatype == "BF16" else array.astype(dtype)
            )
    if values and datatype != "BOOL":
        bounds = np.iinfo(dtype.str)
        low, high = min(values), max(values)
        if low < bounds.min or high > bounds.max:
            outside = str(low if low < bounds.min else high)
            raise InvalidArgument(
                f"{where}: expected {bounds.min} to {bounds.max} in {datatype}, got {outside:.64}"
            )
    return np.array(values, dtype)


def _even(data: list[Any], where: str) -> list[Any]:
    """The values of nested arrays of even lengths in their order, level by level."""
    level = data
    while list in (kinds := set(map(type, level))):
        if len(kinds) > 1 or len(set(map(len, level))) > 1:
            raise InvalidArgument(f"{where}: expected numbers in an even array")
        level = list(chain.from_iterable(level))
    return level


def _bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32 values, rounded to the nearest, ties to even."""
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")


def _flat(data: list[Any]) -> Iterator[Any]:
    """The values of nested arrays in their order, without recursion."""
    waiting = [iter(data)]
    while waiting:
        for value in waiting[-1]:
            if isinstance(value, list):
                waiting.append(iter(value))
                break
            yield value
        else:
            waiting.pop()


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
