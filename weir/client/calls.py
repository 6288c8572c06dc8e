"""The calls around inference: what there is, how it does, whether it is ready. No I/O."""

from collections.abc import Iterable

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from weir.client.results import IndexEntry, ModelMetadata, TensorMetadata
from weir.client.wire import SERVICE, Call, Received, Version, parse
from weir.protocol import inference_pb2 as pb

HEALTH = "grpc.health.v1.Health"
WATCH = f"/{HEALTH}/Watch"
SERVING = "SERVING"


def metadata(model: str, version: Version = "") -> Call[ModelMetadata]:
    """The call for a model's tensors."""
    request = pb.ModelMetadataRequest(name=model, version=str(version))
    return Call(f"/{SERVICE}/ModelMetadata", request.SerializeToString(), _read_metadata)


def server_metadata() -> Call[pb.ServerMetadataResponse]:
    """The call for the server's name, version and extensions."""
    return _plain("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)


def config(model: str, version: Version = "") -> Call[pb.ModelConfigResponse]:
    """The call for a model's configuration."""
    request = pb.ModelConfigRequest(name=model, version=str(version))
    return _plain("ModelConfig", request, pb.ModelConfigResponse)


def statistics(model: str = "", version: Version = "") -> Call[pb.ModelStatisticsResponse]:
    """The call for counts and durations, of every model if `model` is empty."""
    request = pb.ModelStatisticsRequest(name=model, version=str(version))
    return _plain("ModelStatistics", request, pb.ModelStatisticsResponse)


def index(*, ready: bool = False) -> Call[tuple[IndexEntry, ...]]:
    """The call for every known model, or only those that are ready."""
    request = pb.RepositoryIndexRequest(ready=ready)
    return Call(f"/{SERVICE}/RepositoryIndex", request.SerializeToString(), _read_index)


def server_live() -> Call[bool]:
    """The call that asks whether the process answers."""
    return Call(f"/{SERVICE}/ServerLive", b"", lambda body: parse(pb.ServerLiveResponse, body).live)


def server_ready() -> Call[bool]:
    """The call that asks whether the server takes work."""
    return Call(
        f"/{SERVICE}/ServerReady", b"", lambda body: parse(pb.ServerReadyResponse, body).ready
    )


def model_ready(model: str, version: Version = "") -> Call[bool]:
    """The call that asks whether a model can answer now."""
    request = pb.ModelReadyRequest(name=model, version=str(version))
    return Call(
        f"/{SERVICE}/ModelReady",
        request.SerializeToString(),
        lambda body: parse(pb.ModelReadyResponse, body).ready,
    )


def health(service: str = "") -> Call[str]:
    """The call for the health of a service: a model's name, or empty for the server."""
    return Call(f"/{HEALTH}/Check", health_request(service), read_health)


def health_request(service: str) -> bytes:
    """The request of Check and of Watch."""
    return health_pb2.HealthCheckRequest(service=service).SerializeToString()


def read_health(body: bytes) -> str:
    """SERVING, NOT_SERVING, SERVICE_UNKNOWN or UNKNOWN."""
    status = parse(health_pb2.HealthCheckResponse, body).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def _plain(method: str, request: Message, response: type[Received]) -> Call[Received]:
    """A call whose answer is the protocol's own message."""
    return Call(
        f"/{SERVICE}/{method}", request.SerializeToString(), lambda body: parse(response, body)
    )


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


def _read_index(body: bytes) -> tuple[IndexEntry, ...]:
    return tuple(
        IndexEntry(entry.name, entry.version, entry.state, entry.reason)
        for entry in parse(pb.RepositoryIndexResponse, body).models
    )
