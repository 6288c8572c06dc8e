"""The protocol's request parameters: what clients may ask for beside their tensors."""

from collections.abc import Mapping

from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest, Unsupported

MAX_ID_CHARACTERS = 256
_MAX_PARAMETERS = 64
_MAX_TIMEOUT_US = 86_400 * 1_000_000
_MAX_PRIORITY = 2**32 - 1
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY = "shared_memory_"
_EMPTY_FINAL = "triton_enable_empty_final_response"

Parameters = Mapping[str, pb.InferParameter]


def check_id(request_id: str) -> None:
    """Refuse ids that would make a mess of a log."""
    if len(request_id) > MAX_ID_CHARACTERS:
        raise InvalidRequest(
            f"id: expected at most {MAX_ID_CHARACTERS} characters, got {len(request_id)}"
        )
    if not request_id.isprintable():
        raise InvalidRequest("id: expected printable characters, got others")


def read_timeout_s(parameters: Parameters) -> float | None:
    """Check a request's parameters; unknown ones are the client's own business.

    Returns:
        What `timeout` leaves the request to wait and run; None if it leaves the deadline alone.

    Raises:
        InvalidRequest: too many, of the wrong type, out of bounds, or reserved.
        Unsupported: a stateful sequence.
    """
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
    """Refuse what an input may not ask for."""
    _check_count(parameters)
    if any(key.startswith(_SHARED_MEMORY) for key in parameters):
        raise Unsupported(f"input {name!r}: shared memory is not offered")


def read_classification(name: str, parameters: Parameters) -> int | None:
    """How many classes of an output are wanted as text; None for the tensor itself."""
    _check_count(parameters)
    if any(key.startswith(_SHARED_MEMORY) for key in parameters):
        raise Unsupported(f"output {name!r}: shared memory is not offered")
    parameter = parameters.get("classification")
    if parameter is None:
        return None
    count = _integer("classification", parameter, 2**31 - 1)
    if count < 1:
        raise InvalidRequest(f"output {name!r}: classification: expected 1 or more, got {count}")
    return count


def read_integer(parameters: Parameters, key: str, least: int, most: int) -> int | None:
    """A whole number that a request may give; None if it does not.

    Raises:
        InvalidRequest: of another type, or out of bounds.
    """
    if key not in parameters:
        return None
    value = _integer(key, parameters[key], most)
    if value < least:
        raise InvalidRequest(f"parameter {key!r}: expected {least} to {most}, got {value}")
    return value


def read_number(parameters: Parameters, key: str, least: float, most: float) -> float | None:
    """A number that a request may give, whole or not; likewise."""
    if key not in parameters:
        return None
    kind = _expect(key, parameters[key], "double_param", "int64_param", "uint64_param")
    value = float(getattr(parameters[key], kind))
    if not least <= value <= most:
        raise InvalidRequest(f"parameter {key!r}: expected {least:g} to {most:g}, got {value:g}")
    return value


def _check_count(parameters: Parameters) -> None:
    if len(parameters) > _MAX_PARAMETERS:
        raise InvalidRequest(
            f"expected at most {_MAX_PARAMETERS} parameters, got {len(parameters)}"
        )


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
    """Clients send id 0, or "", and false flags to say that there is no sequence."""
    _expect(key, parameter, "int64_param", "uint64_param", "string_param", "bool_param")
    if parameter.int64_param or parameter.uint64_param or parameter.string_param:
        raise Unsupported("stateful sequences are not offered")
    if parameter.bool_param:
        raise Unsupported("stateful sequences are not offered")
