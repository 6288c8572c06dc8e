"""Bad requests, each with the statuses that it may end with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.soak import oracle
from weir.protocol import inference_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"
MESSAGE_BYTES = 1 << 20
"""The server's limit of a message."""

_INVALID, _NOT_FOUND, _EXHAUSTED, _UNIMPLEMENTED = 3, 5, 8, 12


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request that must be refused.

    Attributes:
        message: makes its bytes, given an id.
        statuses: the numbers of the statuses it may end with.
    """

    name: str
    message: Callable[[str], bytes]
    statuses: tuple[int, ...] = (_INVALID,)
    method: str = METHOD
    is_compressed: bool = False


def _request(
    request_id: str, model_name: str = "fingerprint", model_version: str = ""
) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name=model_name, model_version=model_version, id=request_id)


def _with_input(
    request_id: str,
    *,
    name: str = "row",
    datatype: str = "INT64",
    shape: tuple[int, ...] = (1, 6),
    raw: bytes = bytes(48),
    **fields: str,
) -> bytes:
    message = _request(request_id, **fields)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(raw)
    return message.SerializeToString()


def _twice(request_id: str) -> bytes:
    message = pb.ModelInferRequest.FromString(_with_input(request_id))
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])
    return message.SerializeToString()


def _with_output(request_id: str) -> bytes:
    message = pb.ModelInferRequest.FromString(_with_input(request_id))
    message.outputs.add(name="nothing")
    return message.SerializeToString()


def _many_inputs(request_id: str) -> bytes:
    message = _request(request_id)
    for _ in range(5_000):
        message.inputs.add()
    return message.SerializeToString()


def _with_parameter(request_id: str, name: str) -> bytes:
    message = pb.ModelInferRequest.FromString(_with_input(request_id))
    message.parameters[name].int64_param = 7
    return message.SerializeToString()


def _long_row(request_id: str) -> bytes:
    width = oracle.MAX_LENGTH + 1
    raw = np.zeros(width, np.int64).tobytes()
    return _with_input(request_id, shape=(1, width), raw=raw, model_name="lengths")


BAD_REQUESTS = (
    BadRequest("wrong datatype", lambda id_: _with_input(id_, datatype="INT32")),
    BadRequest("wrong rank", lambda id_: _with_input(id_, shape=(6,))),
    BadRequest("missing input", lambda id_: _request(id_).SerializeToString()),
    BadRequest("unknown input", lambda id_: _with_input(id_, name="column")),
    BadRequest("input twice", _twice),
    BadRequest("unknown output", _with_output),
    BadRequest("no rows", lambda id_: _with_input(id_, shape=(0, 6), raw=b"")),
    BadRequest("negative axis", lambda id_: _with_input(id_, shape=(-1, 6))),
    BadRequest("overflowing shape", lambda id_: _with_input(id_, shape=(2**4, 2**60 + 2))),
    BadRequest("too many rows", lambda id_: _with_input(id_, shape=(17, 6), raw=bytes(17 * 48))),
    BadRequest("too few bytes", lambda id_: _with_input(id_, raw=bytes(47))),
    BadRequest("too many bytes", lambda id_: _with_input(id_, raw=bytes(56))),
    BadRequest("many axes", lambda id_: _with_input(id_, shape=(1,) * 40)),
    BadRequest("many inputs", _many_inputs),
    BadRequest("row too long", _long_row),
    BadRequest("unknown model", lambda id_: _with_input(id_, model_name="none"), (_NOT_FOUND,)),
    BadRequest(
        "unknown version", lambda id_: _with_input(id_, model_version="9999"), (_NOT_FOUND,)
    ),
    BadRequest(
        "odd version", lambda id_: _with_input(id_, model_version=" 1"), (_INVALID, _NOT_FOUND)
    ),
    BadRequest(
        "name like a path",
        lambda id_: _with_input(id_, model_name="../../etc/passwd"),
        (_INVALID, _NOT_FOUND),
    ),
    BadRequest(
        "sequence", lambda id_: _with_parameter(id_, "sequence_id"), (_INVALID, _UNIMPLEMENTED)
    ),
    BadRequest("odd id", lambda id_: _with_input(f"{id_}\n\x00")),
    BadRequest("long id", lambda id_: _with_input(id_ * 100)),
    BadRequest("empty message", lambda _: b""),
    BadRequest("garbage", lambda id_: id_.encode() * 9),
    BadRequest(
        "too large", lambda id_: _with_input(id_, raw=bytes(2 * MESSAGE_BYTES)), (_EXHAUSTED,)
    ),
    BadRequest(
        "gzip bomb",
        lambda id_: _with_input(id_, raw=bytes(8 * MESSAGE_BYTES)),
        (_EXHAUSTED,),
        is_compressed=True,
    ),
    BadRequest("unknown method", lambda _: b"", (_UNIMPLEMENTED,), method="/inference.None/Call"),
)
"""By their numbers in the ledger."""
