"""The inference service: one short method per call of Open Inference Protocol v2.

Calls that are not here are answered UNIMPLEMENTED by the transport, which finds no handler.
Every handler runs on the transport's thread and returns at once.
"""

from importlib.metadata import version as installed_version

from weir.protocol import inference_pb2 as pb
from weir.server.errors import Unsupported
from weir.server.protocol import model_metadata
from weir.server.repository.registry import Entry
from weir.server.repository.repository import Repository
from weir.server.repository.version_state import State
from weir.server.scheduling.admission import Admission
from weir.server.services.handlers import unary
from weir.server.services.inference_stream import Follow, InferStream
from weir.server.transport.base import Call, Handlers, Stream, Unary

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

STREAM_INFER = f"/{SERVICE}/ModelStreamInfer"

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


class Servicer:
    """Answers the calls of `inference.GRPCInferenceService`.

    Args:
        repository: the models.
        admission: the way to their schedulers.
        follow: what requests on streams are followed by; see `streams.InferStream`.
    """

    def __init__(
        self, repository: Repository, admission: Admission, follow: Follow | None = None
    ) -> None:
        self._repository = repository
        self._admission = admission
        self._follow = follow

    def handlers(self) -> Handlers:
        """By full method name."""
        return {
            f"/{SERVICE}/ServerLive": unary(pb.ServerLiveRequest, self.server_live),
            f"/{SERVICE}/ServerReady": unary(pb.ServerReadyRequest, self.server_ready),
            f"/{SERVICE}/ServerMetadata": unary(pb.ServerMetadataRequest, self.server_metadata),
            f"/{SERVICE}/ModelReady": unary(pb.ModelReadyRequest, self.model_ready),
            f"/{SERVICE}/ModelMetadata": unary(pb.ModelMetadataRequest, self.model_metadata),
            f"/{SERVICE}/ModelConfig": unary(pb.ModelConfigRequest, self.model_config),
            f"/{SERVICE}/ModelStatistics": unary(pb.ModelStatisticsRequest, self.statistics),
            f"/{SERVICE}/RepositoryIndex": unary(pb.RepositoryIndexRequest, self.index),
            f"/{SERVICE}/ModelInfer": Unary(self.infer),
            STREAM_INFER: Stream(self.stream_infer),
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
        model = self._repository.get(request.name, request.version)
        return model_metadata.metadata(
            model.description, self._repository.catalogue.ready_versions(model.name)
        )

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """The same and the batching limits, in Triton's words."""
        model = self._repository.get(request.name, request.version)
        versions = self._repository.catalogue.ready_versions(model.name)
        return pb.ModelConfigResponse(config=model_metadata.config(model.description, versions))

    def statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Of one version, of every one of a model, or of all that answer."""
        if request.version:
            models = [self._repository.get(request.name, request.version)]
        else:
            if request.name:
                # Unknown, or with nobody who answers: told as that.
                self._repository.get(request.name, "")
            models = [
                entry.model
                for entry in self._repository.entries()
                if entry.model is not None and request.name in ("", entry.name)
            ]
        return pb.ModelStatisticsResponse(
            model_stats=[model_metadata.statistics(model.metrics) for model in models]
        )

    def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every known version with its state and, if it is not ready, the reason."""
        if request.repository_name:
            raise Unsupported("there is one repository, and it has no name")
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
        self._admission.admit(payload, call, call.time_left_s(), call.on_close)

    def stream_infer(self, call: Call) -> None:
        """Requests as they come; each answered when it is done."""
        InferStream(call, self._admission.admit, self._follow).start()


def _indexed(entry: Entry) -> pb.RepositoryIndexResponse.ModelIndex:
    return pb.RepositoryIndexResponse.ModelIndex(
        name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason
    )
