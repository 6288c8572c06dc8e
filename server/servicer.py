"""The inference service: one short method per call of Open Inference Protocol v2.

Calls that are not here are answered UNIMPLEMENTED by the transport, which finds no handler.
Threads: a handler runs on the transport's; a large message is unpacked by `weir-unpack_<n>`, a
bounded pool, so that the I/O thread is not held up by it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from server import description
from server.errors import InvalidRequest, NotOffered
from server.inference import Admission
from server.pb import inference_pb2 as pb
from server.pending import Reply
from server.repository import Entry, Repository, State
from server.statuses import refusal_of
from server.streams import InferStream
from server.transport.call import Call, Handlers, Stream, Unary

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "statistics",
)
_LARGE_BYTES = 256 * 1024

M = TypeVar("M", bound=Message)


class Servicer:
    """Answers the calls of `inference.GRPCInferenceService`.

    Args:
        repository: the models.
        admission: the way to their schedulers.
    """

    def __init__(self, repository: Repository, admission: Admission) -> None:
        self._repository = repository
        self._admission = admission
        self._unpacking = ThreadPoolExecutor(1, thread_name_prefix="weir-unpack")

    def handlers(self) -> Handlers:
        """By full method name."""
        return {
            f"/{SERVICE}/ServerLive": _unary(pb.ServerLiveRequest, self.server_live),
            f"/{SERVICE}/ServerReady": _unary(pb.ServerReadyRequest, self.server_ready),
            f"/{SERVICE}/ServerMetadata": _unary(pb.ServerMetadataRequest, self.server_metadata),
            f"/{SERVICE}/ModelReady": _unary(pb.ModelReadyRequest, self.model_ready),
            f"/{SERVICE}/ModelMetadata": _unary(pb.ModelMetadataRequest, self.model_metadata),
            f"/{SERVICE}/ModelConfig": _unary(pb.ModelConfigRequest, self.model_config),
            f"/{SERVICE}/ModelStatistics": _unary(pb.ModelStatisticsRequest, self.statistics),
            f"/{SERVICE}/RepositoryIndex": _unary(pb.RepositoryIndexRequest, self.index),
            f"/{SERVICE}/ModelInfer": Unary(self.infer),
            f"/{SERVICE}/ModelStreamInfer": Stream(self.stream_infer),
        }

    @property
    def is_ready(self) -> bool:
        """Whether requests are welcome."""
        return self._repository.is_ready and not self._admission.is_draining

    def server_live(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """The process answers, and that is all this says."""
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Models are loaded, and the server is not stopping."""
        return pb.ServerReadyResponse(ready=self.is_ready)

    def server_metadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Name, version, extensions."""
        return pb.ServerMetadataResponse(
            name="weir", version=installed_version("weir"), extensions=_EXTENSIONS
        )

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """False for a model that is known and cannot answer; NOT_FOUND for an unknown one."""
        entry = self._repository.entry(request.name, request.version)
        ready = entry.state is State.READY and not self._admission.is_draining
        return pb.ModelReadyResponse(ready=ready)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Names, datatypes and shapes."""
        return description.metadata(self._repository.get(request.name, request.version))

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """The same and the batching limits, in Triton's words."""
        model = self._repository.get(request.name, request.version)
        return pb.ModelConfigResponse(config=description.config(model))

    def statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Of one model, or of every one that answers."""
        if request.name:
            models = [self._repository.get(request.name, request.version)]
        else:
            entries = self._repository.entries()
            models = [entry.model for entry in entries if entry.model is not None]
        return pb.ModelStatisticsResponse(
            model_stats=[description.statistics(model) for model in models]
        )

    def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every known version with its state and, if it is not ready, the reason."""
        if request.repository_name:
            raise NotOffered("there is one repository, and it has no name")
        entries = self._repository.entries()
        return pb.RepositoryIndexResponse(
            models=[
                _indexed(entry)
                for entry in entries
                if entry.state is State.READY or not request.ready
            ]
        )

    def infer(self, call: Call, payload: bytes) -> None:
        """One request; answered by the thread that runs its batch."""
        self._admit(payload, call, call.time_left_s(), call.on_close)

    def stream_infer(self, call: Call) -> None:
        """Requests as they come; each answered when it is done."""
        InferStream(call, self._admit).start()

    def _admit(
        self,
        payload: bytes,
        reply: Reply,
        time_left_s: float | None,
        admitted: Callable[[Callable[[], None]], None],
    ) -> None:
        if len(payload) > _LARGE_BYTES:
            self._unpacking.submit(self._admission.admit, payload, reply, time_left_s, admitted)
        else:
            self._admission.admit(payload, reply, time_left_s, admitted)


def _unary(request_type: type[M], method: Callable[[M], Message]) -> Unary:
    """A handler that parses, calls, and maps failures to statuses."""

    def handle(call: Call, payload: bytes) -> None:
        try:
            message = method(_parse(request_type, payload)).SerializeToString()
        except Exception as error:  # noqa: BLE001 - the one place where these calls may fail
            refusal = refusal_of(error)
            call.finish(refusal.code, refusal.details)
        else:
            call.finish(grpc.StatusCode.OK, message=message)

    return Unary(handle)


def _parse(request_type: type[M], payload: bytes) -> M:
    try:
        return request_type.FromString(payload)
    except DecodeError:
        name = request_type.DESCRIPTOR.name
        raise InvalidRequest(f"the message is no valid {name}") from None


def _indexed(entry: Entry) -> pb.RepositoryIndexResponse.ModelIndex:
    return pb.RepositoryIndexResponse.ModelIndex(
        name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason
    )
