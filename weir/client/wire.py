"""What goes over the wire, as values: calls from numpy, answers to numpy. No I/O.

A `Call` is one unary call ready to be made: path, request bytes, and how its answer is read. Both
clients and the load generator send these, so what a request looks like is written once.

Rules of the protocol kept here: tensors travel as raw bytes only, one entry a tensor in order; no
requested outputs means all of them; an empty version leaves the choice to the server.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypedDict, TypeVar, Unpack

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import ArrayLike

from weir.client.errors import BY_STATUS, CallError, Internal, InvalidArgument, Unknown, UsageError
from weir.client.results import Answer, Array, Class, ModelMetadata, Parameter
from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES, datatype_of, from_raw, to_raw

Result = TypeVar("Result")
Received = TypeVar("Received", bound=Message)
Version: TypeAlias = str | int
"""The number of a version, or one of its labels; empty leaves the choice to the server."""

SERVICE = "inference.GRPCInferenceService"
# In the answer to a request that failed on a stream, whose own field for it is but a text.
STREAM_STATUS = "grpc_status"
STREAM_INFER = f"/{SERVICE}/ModelStreamInfer"


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One unary call: where it goes, its request, and how to read the answer."""

    path: str
    body: bytes
    read: Callable[[bytes], Result]


class InferOptions(TypedDict, total=False):
    """What may be said about a request besides its inputs.

    Attributes:
        version: the model's version or a label of it, by default the server's choice.
        outputs: which outputs are wanted, by default all.
        request_id: echoed in the answer.
        parameters: of the request, in the protocol's sense.
    """

    version: Version
    outputs: Sequence[str] | None
    request_id: str
    parameters: Mapping[str, Parameter] | None


def channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """The limits of a channel, in gRPC's words."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    ]


def limit(timeout_s: float | None, otherwise_s: float | None) -> float | None:
    """A call's deadline as gRPC takes it: its own, or else the client's; None for no end."""
    limit_s = otherwise_s if timeout_s is None else timeout_s
    return None if limit_s == math.inf else limit_s


def infer_request(
    model: str, inputs: Mapping[str, ArrayLike], *, top: int = 0, **options: Unpack[InferOptions]
) -> pb.ModelInferRequest:
    """A request from arrays by input name, or what numpy makes arrays of; strings are BYTES.

    With `top`, the top k classes of the outputs asked for are wanted instead of their values.

    Raises:
        InvalidArgument: an array's dtype does not exist in the protocol.
    """
    request = pb.ModelInferRequest(
        model_name=model,
        model_version=str(options.get("version", "")),
        id=options.get("request_id", ""),
    )
    for key, parameter in (options.get("parameters") or {}).items():
        _set_parameter(request.parameters[key], parameter)
    for name, value in inputs.items():
        array = np.asarray(value)
        request.inputs.add(name=name, datatype=_datatype(name, array), shape=array.shape)
        request.raw_input_contents.append(to_raw(array))
    for name in options.get("outputs") or ():
        wanted = request.outputs.add(name=name)
        if top:
            wanted.parameters["classification"].int64_param = top
    return request


def only_input(metadata: ModelMetadata, array: ArrayLike) -> dict[str, ArrayLike]:
    """One array by the name of the model's one input; InvalidArgument if it has another number."""
    if len(metadata.inputs) != 1:
        names = ", ".join(tensor.name for tensor in metadata.inputs)
        raise InvalidArgument(
            f"{metadata.name}: expected arrays by name ({names}), got one without a name"
        )
    return {metadata.inputs[0].name: array}


def ranked_output(metadata: ModelMetadata) -> str:
    """The output whose classes are ranked unless the caller names one."""
    names = [tensor.name for tensor in metadata.outputs]
    return "probabilities" if "probabilities" in names else names[0]


def infer(request: pb.ModelInferRequest) -> Call[Answer]:
    """The call that sends `request`."""
    return Call(f"/{SERVICE}/ModelInfer", request.SerializeToString(), read_answer)


def read_answer(body: bytes) -> Answer:
    """An answer from its bytes; Internal if it breaks the protocol."""
    return _answer(parse(pb.ModelInferResponse, body))


def read_stream_answer(body: bytes) -> tuple[str, Answer | CallError]:
    """The id of a request sent on a stream, with its answer or what went wrong."""
    message = parse(pb.ModelStreamInferResponse, body)
    response = message.infer_response
    if message.error_message:
        status = response.parameters.get(STREAM_STATUS, pb.InferParameter()).string_param
        return response.id, BY_STATUS.get(status, Unknown)(message.error_message)
    return response.id, _answer(response)


def rank(
    model: str, inputs: Mapping[str, ArrayLike], *, top: int, output: str, version: Version
) -> Call[list[list[Class]]]:
    """The call for the `top` classes of each row of an output."""
    request = infer_request(model, inputs, version=version, outputs=[output], top=top)

    def read(body: bytes) -> list[list[Class]]:
        rows = np.atleast_2d(read_answer(body)[output])
        return [[_class(entry) for entry in row] for row in rows.tolist()]

    return Call(f"/{SERVICE}/ModelInfer", request.SerializeToString(), read)


def parse(kind: type[Received], body: bytes) -> Received:
    """A message from its bytes; Internal if they are none of that kind."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Internal(f"expected a {kind.DESCRIPTOR.name}, got {len(body)} other bytes") from error


def _set_parameter(parameter: pb.InferParameter, value: Parameter) -> None:
    match value:
        case bool():
            parameter.bool_param = value
        case int() if value < 1 << 63:
            parameter.int64_param = value
        case int():
            parameter.uint64_param = value
        case float():
            parameter.double_param = value
        case str():
            parameter.string_param = value


def _get_parameter(parameter: pb.InferParameter) -> Parameter:
    chosen = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, chosen) if chosen else ""


def _datatype(name: str, array: Array) -> str:
    try:
        return datatype_of(array.dtype)
    except ValueError as error:
        raise InvalidArgument(f"input {name!r}: {error}") from error


def _answer(response: pb.ModelInferResponse) -> Answer:
    tensors, contents = response.outputs, response.raw_output_contents
    if len(tensors) != len(contents):
        raise Internal(f"expected raw contents of {len(tensors)} outputs, got {len(contents)}")
    return Answer(
        model=response.model_name,
        version=response.model_version,
        id=response.id,
        outputs={
            tensor.name: _array(tensor, raw) for tensor, raw in zip(tensors, contents, strict=True)
        },
        parameters={key: _get_parameter(value) for key, value in response.parameters.items()},
    )


def _array(tensor: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> Array:
    if tensor.datatype not in DATATYPES:
        raise Internal(f"output {tensor.name!r}: unknown datatype {tensor.datatype!r}")
    try:
        return from_raw(raw, tensor.datatype, tuple(tensor.shape))
    except ValueError as error:
        raise Internal(f"output {tensor.name!r}: {error}") from error


def _class(entry: bytes) -> Class:
    score, index, *label = entry.decode().split(":", 2)
    return Class(score=float(score), index=int(index), label=label[0] if label else "")


def check_in_flight(in_flight: int) -> int:
    """The same number; UsageError unless at least one request may be on its way."""
    if in_flight < 1:
        raise UsageError(f"in_flight: expected 1 or more, got {in_flight}")
    return in_flight
