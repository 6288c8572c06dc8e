"""`inference.GRPCInferenceService`: one short method per call of the Open Inference Protocol v2.

The transport answers a call without a handler with UNIMPLEMENTED. `model_control` holds the calls
that load and unload models. Every handler runs on the transport's thread and returns at once.
"""

from collections.abc import Callable
from importlib.metadata import version as installed_version
from operator import attrgetter
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from weir.protocol import inference_pb2 as pb
from weir.server.access.authorization import Caller, check_model, may_use
from weir.server.errors import UnknownModel, Unsupported
from weir.server.protocol.request_decoder import parse_small
from weir.server.repository.repository import Repository
from weir.server.repository.version_state import State
from weir.server.scheduling.admission import Admission
from weir.server.services import model_metadata
from weir.server.services.inference_stream import InferStream, InterceptReply
from weir.server.transport.base import Call, Handlers, Stream, Unary

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

STREAM_INFER = f"/{SERVICE}/ModelStreamInfer"

M = TypeVar("M", bound=Message)

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


def unary(
    request_type: type[M],
    method: Callable[[M], Message],
    *,
    model: Callable[[M], str] | None = None,
) -> Unary:
    """The handler of a method that returns its response; a failure ends the call (`guarded`).

    Args:
        model: the model that a request names, which its caller must be allowed to use.
    """

    def handle(call: Call, payload: bytes) -> None:
        request = parse_small(request_type, payload)
        if model is not None:
            check_model(call.caller, model(request))
        call.finish(grpc.StatusCode.OK, message=method(request).SerializeToString())

    return Unary(handle)


def unary_for(request_type: type[M], method: Callable[[M, Caller | None], Message]) -> Unary:
    """As `unary`, for a method whose response depends on the models that its caller may use."""

    def handle(call: Call, payload: bytes) -> None:
        response = method(parse_small(request_type, payload), call.caller)
        call.finish(grpc.StatusCode.OK, message=response.SerializeToString())

    return Unary(handle)


class InferenceService:
    """`GRPCInferenceService`; `intercept` wraps the reply to each request of a stream."""

    def __init__(
        self, repository: Repository, admission: Admission, intercept: InterceptReply | None = None
    ) -> None:
        self._repository = repository
        self._admission = admission
        self._intercept = intercept

    def handlers(self) -> Handlers:
        """The service's handlers, by full method name."""
        name = attrgetter("name")
        return {
            f"/{SERVICE}/ServerLive": unary(pb.ServerLiveRequest, self.server_live),
            f"/{SERVICE}/ServerReady": unary(pb.ServerReadyRequest, self.server_ready),
            f"/{SERVICE}/ServerMetadata": unary(pb.ServerMetadataRequest, self.server_metadata),
            f"/{SERVICE}/ModelReady": unary(pb.ModelReadyRequest, self.model_ready, model=name),
            f"/{SERVICE}/ModelMetadata": unary(pb.ModelMetadataRequest, self.metadata, model=name),
            f"/{SERVICE}/ModelConfig": unary(pb.ModelConfigRequest, self.config, model=name),
            f"/{SERVICE}/ModelStatistics": unary_for(pb.ModelStatisticsRequest, self.statistics),
            f"/{SERVICE}/RepositoryIndex": unary_for(pb.RepositoryIndexRequest, self.index),
            f"/{SERVICE}/ModelInfer": Unary(self.infer),
            STREAM_INFER: Stream(self.stream_infer),
        }

    @property
    def is_ready(self) -> bool:
        """Whether the models are loaded and the server is not stopping."""
        return self._repository.is_ready and not self._admission.is_draining

    def server_live(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Live as long as the process answers."""
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Ready if the models are loaded and the server is not stopping."""
        return pb.ServerReadyResponse(ready=self.is_ready)

    def server_metadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions."""
        return pb.ServerMetadataResponse(
            name="weir", version=installed_version("weir"), extensions=_EXTENSIONS
        )

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether a model can answer; one that is not known cannot, as in Triton."""
        try:
            entry = self._repository.registry.entry(request.name, request.version)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)
        ready = entry.state is State.READY and not self._admission.is_draining
        return pb.ModelReadyResponse(ready=ready)

    def metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Names, datatypes and shapes of the inputs and outputs."""
        model = self._repository.get(request.name, request.version)
        versions = self._repository.registry.ready_versions(model.name)
        return model_metadata.metadata(model, versions)

    def config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """The metadata and the batching limits as Triton's model configuration."""
        model = self._repository.get(request.name, request.version)
        versions = self._repository.registry.ready_versions(model.name)
        return pb.ModelConfigResponse(config=model_metadata.config(model, versions))

    def statistics(
        self, request: pb.ModelStatisticsRequest, caller: Caller | None = None
    ) -> pb.ModelStatisticsResponse:
        """Statistics of one version, of all versions of a model, or of all of the caller's."""
        if request.name:
            check_model(caller, request.name)
        if request.version:
            models = [self._repository.get(request.name, request.version)]
        else:
            if request.name:
                # Raises if the model is unknown or has no version that is ready.
                self._repository.get(request.name, "")
            models = [
                entry.model
                for entry in self._repository.registry.entries()
                if entry.model is not None
                and request.name in ("", entry.name)
                and may_use(caller, entry.name)
            ]
        return pb.ModelStatisticsResponse(
            model_stats=[model_metadata.statistics(model.stats) for model in models]
        )

    def index(
        self, request: pb.RepositoryIndexRequest, caller: Caller | None = None
    ) -> pb.RepositoryIndexResponse:
        """The caller's models: every known version with its state, and why it is not ready."""
        if request.repository_name:
            name = request.repository_name[:64]
            raise Unsupported(f"repository name: expected none, got {name!r}")
        response = pb.RepositoryIndexResponse()
        for entry in self._repository.registry.entries():
            is_shown = entry.state is State.READY or not request.ready
            if is_shown and may_use(caller, entry.name):
                response.models.add(
                    name=entry.name,
                    version=entry.version,
                    state=entry.state.value,
                    reason=entry.reason,
                )
        return response

    def infer(self, call: Call, payload: bytes) -> None:
        """Admit one request; the thread that runs its batch sends the answer."""
        self._admission.admit(payload, call, call.time_left_s(), call.on_close)

    def stream_infer(self, call: Call) -> None:
        """Open a stream of requests; see `inference_stream`."""
        InferStream(call, self._admission.admit, self._intercept).start()
