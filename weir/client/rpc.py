"""Calls as values: numpy and Python values to request bytes, response bytes to results. No I/O.

A `Call` is one unary call, ready to be sent. Both clients and the load generator send these, so the
form of each request is written once.

Rules of the protocol that hold here:

- Tensors travel as raw bytes only, one entry a tensor, in order.
- A request that lists no outputs gets all of them.
- An empty version leaves the choice to the server.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Generic, TypeAlias, TypedDict, TypeVar, Unpack

import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from numpy.typing import ArrayLike

from weir.client.errors import BY_STATUS, CallError, Internal, InvalidArgument, Unknown, UsageError
from weir.client.results import (
    Answer,
    Array,
    Class,
    IndexEntry,
    LabelChange,
    ModelInfo,
    ModelMetadata,
    Parameter,
    ServerInfo,
    TensorMetadata,
    VersionInfo,
)
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb
from weir.protocol.datatypes import DATATYPES, datatype_of, from_raw, to_raw

Result = TypeVar("Result")
Received = TypeVar("Received", bound=Message)
Inputs: TypeAlias = Mapping[str, ArrayLike] | ArrayLike
"""Arrays by input name, or one array for a model of one input."""
Version: TypeAlias = str | int
"""The number of a version, or one of its labels; empty leaves the choice to the server."""

Metadata: TypeAlias = tuple[tuple[str, str], ...]
"""Request metadata of one call: names in lower case, with their values."""

SERVICE = "inference.GRPCInferenceService"
MODELS = "weir.v1.Models"
HEALTH = "grpc.health.v1.Health"
STREAM_INFER = f"/{SERVICE}/ModelStreamInfer"
WATCH = f"/{HEALTH}/Watch"
SERVING = "SERVING"
# Parameter with the status of a request that failed on a stream: the protocol's field is a text.
STREAM_STATUS = "grpc_status"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One unary call: its method's path, the request bytes, and the reader of the response."""

    path: str
    body: bytes
    read: Callable[[bytes], Result]


class InferOptions(TypedDict, total=False):
    """Options of an inference request.

    Attributes:
        version: the model's version or a label of it, by default the server's choice.
        outputs: names of the requested outputs, by default all.
        request_id: echoed in the answer.
        parameters: request parameters of the protocol.
    """

    version: Version
    outputs: Sequence[str] | None
    request_id: str
    parameters: Mapping[str, Parameter] | None


def infer_request(
    model: str, inputs: Mapping[str, ArrayLike], *, top: int = 0, **options: Unpack[InferOptions]
) -> pb.ModelInferRequest:
    """An inference request from arrays by input name; strings become BYTES.

    With `top`, the request asks for the top k classes of its outputs instead of their values.
    """
    request = pb.ModelInferRequest(
        model_name=model,
        model_version=str(options.get("version", "")),
        id=options.get("request_id", ""),
    )
    for key, parameter in (options.get("parameters") or {}).items():
        set_parameter(request.parameters[key], parameter)
    for name, value in inputs.items():
        array = np.asarray(value)
        request.inputs.add(name=name, datatype=_datatype(name, array), shape=array.shape)
        request.raw_input_contents.append(to_raw(array))
    for name in options.get("outputs") or ():
        requested = request.outputs.add(name=name)
        if top:
            requested.parameters["classification"].int64_param = top
    return request


def only_input(metadata: ModelMetadata, array: ArrayLike) -> dict[str, ArrayLike]:
    """One array by the name of the model's only input; InvalidArgument if it has several."""
    if len(metadata.inputs) != 1:
        names = ", ".join(tensor.name for tensor in metadata.inputs)
        raise InvalidArgument(
            f"{metadata.name}: expected arrays by name ({names}), got one without a name"
        )
    return {metadata.inputs[0].name: array}


def ranked_output(metadata: ModelMetadata) -> str:
    """The output that is ranked if the caller names none: `probabilities`, else the first."""
    names = [tensor.name for tensor in metadata.outputs]
    return "probabilities" if "probabilities" in names else names[0]


def infer(request: pb.ModelInferRequest) -> Call[Answer]:
    """The call that sends `request`."""
    return _call("ModelInfer", request, read_answer)


def rank(
    model: str, inputs: Mapping[str, ArrayLike], *, top: int, output: str, version: Version
) -> Call[list[list[Class]]]:
    """The call for the `top` classes of each row of an output."""
    request = infer_request(model, inputs, version=version, outputs=[output], top=top)

    def read(body: bytes) -> list[list[Class]]:
        rows = np.atleast_2d(read_answer(body)[output])
        return [[_class(entry) for entry in row] for row in rows.tolist()]

    return _call("ModelInfer", request, read)


def read_answer(body: bytes) -> Answer:
    """An answer from response bytes; Internal if they break the protocol."""
    return _answer(parse(pb.ModelInferResponse, body))


def read_stream_answer(body: bytes) -> tuple[str, Answer | CallError]:
    """The id of a request on a stream, with its answer or its error."""
    message = parse(pb.ModelStreamInferResponse, body)
    response = message.infer_response
    if message.error_message:
        status = response.parameters.get(STREAM_STATUS, pb.InferParameter()).string_param
        return response.id, BY_STATUS.get(status, Unknown)(message.error_message)
    return response.id, _answer(response)


def parse(kind: type[Received], body: bytes) -> Received:
    """A message from its bytes; Internal if they are no message of that kind."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Internal(f"expected a {kind.DESCRIPTOR.name}, got {len(body)} other bytes") from error


def metadata(model: str, version: Version = "") -> Call[ModelMetadata]:
    """The call for the names, datatypes and shapes of a model's tensors."""
    request = pb.ModelMetadataRequest(name=model, version=str(version))
    return _call("ModelMetadata", request, _read_metadata)


def server_metadata() -> Call[pb.ServerMetadataResponse]:
    """The call for the server's name, version and extensions."""
    read = partial(parse, pb.ServerMetadataResponse)
    return _call("ServerMetadata", pb.ServerMetadataRequest(), read)


def config(model: str, version: Version = "") -> Call[pb.ModelConfigResponse]:
    """The call for a model's configuration."""
    request = pb.ModelConfigRequest(name=model, version=str(version))
    return _call("ModelConfig", request, partial(parse, pb.ModelConfigResponse))


def statistics(model: str = "", version: Version = "") -> Call[pb.ModelStatisticsResponse]:
    """The call for a model's counts and durations; of all models if `model` is empty."""
    request = pb.ModelStatisticsRequest(name=model, version=str(version))
    return _call("ModelStatistics", request, partial(parse, pb.ModelStatisticsResponse))


def server_live() -> Call[bool]:
    """The call for the server's liveness."""
    return Call(f"/{SERVICE}/ServerLive", b"", lambda body: parse(pb.ServerLiveResponse, body).live)


def server_ready() -> Call[bool]:
    """The call for the server's readiness."""
    return _call("ServerReady", pb.ServerReadyRequest(), _read_ready)


def model_ready(model: str, version: Version = "") -> Call[bool]:
    """The call for a model's readiness."""
    return _call("ModelReady", pb.ModelReadyRequest(name=model, version=str(version)), _read_ready)


def health(service: str = "") -> Call[str]:
    """The call for the health of a model by name, or of the server if the name is empty."""
    return Call(f"/{HEALTH}/Check", health_request(service), read_health)


def health_request(service: str) -> bytes:
    """The request of Check and of Watch."""
    return health_pb2.HealthCheckRequest(service=service).SerializeToString()


def read_health(body: bytes) -> str:
    """SERVING, NOT_SERVING, SERVICE_UNKNOWN or UNKNOWN."""
    status = parse(health_pb2.HealthCheckResponse, body).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def index(*, ready: bool = False) -> Call[tuple[IndexEntry, ...]]:
    """The call for the repository index: every model, or only the ready ones."""
    return _call("RepositoryIndex", pb.RepositoryIndexRequest(ready=ready), _read_index)


def models() -> Call[list[ModelInfo]]:
    """The call for every model with its versions."""
    return Call(f"/{MODELS}/ListModels", b"", _read_models)


def server_info() -> Call[ServerInfo]:
    """The call for versions and choices of the server process that answers."""
    return Call(f"/{MODELS}/GetServerInfo", b"", _read_server_info)


def load(model: str, *, reload: bool) -> Call[None]:
    """The call that loads a model from disk."""
    request = pb.RepositoryModelLoadRequest(model_name=model)
    if reload:
        request.parameters["reload"].bool_param = True
    return _call("RepositoryModelLoad", request, _read_nothing)


def unload(model: str) -> Call[None]:
    """The call that unloads a model."""
    request = pb.RepositoryModelUnloadRequest(model_name=model)
    return _call("RepositoryModelUnload", request, _read_nothing)


def set_label(model: str, label: str, version: int | None) -> Call[LabelChange]:
    """The call that gives a label to a version or removes it (None); UsageError if out of range."""
    if version is not None and not 1 <= version <= _MAX_VERSION:
        raise UsageError(f"version: expected a number from 1, got {version}")
    request = models_pb.SetLabelRequest(model_name=model, label=label, version=version or 0)
    return Call(f"/{MODELS}/SetLabel", request.SerializeToString(), _read_label)


def _call(method: str, request: Message, read: Callable[[bytes], Result]) -> Call[Result]:
    return Call(f"/{SERVICE}/{method}", request.SerializeToString(), read)


def set_parameter(parameter: pb.InferParameter, value: Parameter) -> None:
    """Write a value of Python into a parameter of a request."""
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


def get_parameter(parameter: pb.InferParameter) -> Parameter:
    """The value of a parameter, or an empty text if it has none."""
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
        parameters={key: get_parameter(value) for key, value in response.parameters.items()},
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


def _read_metadata(body: bytes) -> ModelMetadata:
    response = parse(pb.ModelMetadataResponse, body)
    return ModelMetadata(
        name=response.name,
        versions=tuple(response.versions),
        platform=response.platform,
        inputs=_tensors(response.inputs),
        outputs=_tensors(response.outputs),
    )


def _tensors(
    tensors: Iterable[pb.ModelMetadataResponse.TensorMetadata],
) -> tuple[TensorMetadata, ...]:
    return tuple(
        TensorMetadata(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors
    )


def _read_ready(body: bytes) -> bool:
    # Both responses have this one field.
    return parse(pb.ModelReadyResponse, body).ready


def _read_index(body: bytes) -> tuple[IndexEntry, ...]:
    return tuple(
        IndexEntry(entry.name, entry.version, entry.state, entry.reason)
        for entry in parse(pb.RepositoryIndexResponse, body).models
    )


def _read_nothing(_: bytes) -> None:
    """An empty response: the call succeeded."""


def _read_label(body: bytes) -> LabelChange:
    response = models_pb.SetLabelResponse.FromString(body)
    return LabelChange(response.written, response.reason)


def _read_models(body: bytes) -> list[ModelInfo]:
    return [
        ModelInfo(
            name=model.name,
            task=model.task,
            answering=model.answering,
            versions=tuple(map(_version, model.versions)),
            on_disk=tuple(model.on_disk),
        )
        for model in parse(models_pb.ListModelsResponse, body).models
    ]


def _read_server_info(body: bytes) -> ServerInfo:
    message = parse(models_pb.GetServerInfoResponse, body)
    return ServerInfo(
        version=message.version,
        grpcio=message.grpcio,
        onnxruntime=message.onnxruntime,
        provider=message.provider,
        transport=message.transport,
        transport_problem=message.transport_problem,
        metrics_address=message.metrics_address,
        process_id=message.process_id,
        started=_time("started_ms", message.started_ms),
        usable_cores=message.usable_cores,
        shares_port=message.shares_port,
    )


def _time(name: str, milliseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError as error:
        raise Internal(f"{name}: expected a time, got {milliseconds}") from error


def _version(version: models_pb.Version) -> VersionInfo:
    return VersionInfo(
        version=version.version,
        labels=tuple(version.labels),
        state=version.state,
        reason=version.reason,
        since=_time("since_ms", version.since_ms),
        provider=version.provider,
        parity=version.parity if version.HasField("parity") else None,
        golden=version.golden if version.HasField("golden") else None,
        is_batched=version.batched if version.HasField("batched") else None,
        batching_reason=version.batching_reason,
        unserved_outputs=tuple(version.unserved_outputs),
        threads=version.threads,
        instances=version.instances,
    )
