"""Model control: `weir.v1.Models`, and the inference service's calls that load and unload models.

No call blocks the transport's thread: the thread `weir-loader` makes a change and answers it.
"""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from weir.bundle.versions import LABEL_FORM, is_label, is_version
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb
from weir.server.access.authorization import Caller, check_model, may_use
from weir.server.errors import InvalidRequest, Unsupported
from weir.server.protocol.request_decoder import parse_small
from weir.server.repository.registry import Entry, ModelVersions
from weir.server.repository.repository import Done, LabelDone, Repository
from weir.server.repository.version_state import State
from weir.server.services.inference import SERVICE as INFERENCE_SERVICE
from weir.server.services.inference import unary, unary_for
from weir.server.telemetry.server_stats import Build
from weir.server.transport.base import Call, Handlers, Unary
from weir.server.transport.status import fail

SERVICE = models_pb.DESCRIPTOR.services_by_name["Models"].full_name

M = TypeVar(
    "M", pb.RepositoryModelLoadRequest, pb.RepositoryModelUnloadRequest, models_pb.SetLabelRequest
)
T = TypeVar("T")
Parameters = Mapping[str, pb.ModelRepositoryParameter]


class ModelControlService:
    """`Models`, and model control; clients may change models only if `is_explicit`.

    Args:
        build: called for each `GetServerInfo`; the server knows it once its ports are bound.
    """

    def __init__(
        self, repository: Repository, build: Callable[[], Build], *, is_explicit: bool
    ) -> None:
        self._repository = repository
        self._build = build
        self._is_explicit = is_explicit

    def handlers(self) -> Handlers:
        """The service's handlers, by full method name."""
        return {
            f"/{SERVICE}/ListModels": unary_for(models_pb.ListModelsRequest, self.list),
            f"/{SERVICE}/GetServerInfo": unary(models_pb.GetServerInfoRequest, self.server_info),
            f"/{INFERENCE_SERVICE}/RepositoryModelLoad": deferred(
                pb.RepositoryModelLoadRequest,
                self.load,
                lambda _: pb.RepositoryModelLoadResponse(),
            ),
            f"/{INFERENCE_SERVICE}/RepositoryModelUnload": deferred(
                pb.RepositoryModelUnloadRequest,
                self.unload,
                lambda _: pb.RepositoryModelUnloadResponse(),
            ),
            f"/{SERVICE}/SetLabel": deferred(
                models_pb.SetLabelRequest,
                self.set_label,
                lambda reason: models_pb.SetLabelResponse(written=not reason, reason=reason),
            ),
        }

    def list(
        self, _request: models_pb.ListModelsRequest, caller: Caller | None = None
    ) -> models_pb.ListModelsResponse:
        """The caller's models with their versions."""
        models = self._repository.registry.models
        return models_pb.ListModelsResponse(
            # A pair is listed once, by the name of its directory.
            models=[
                _model(name, models[name])
                for name in sorted(models)
                if models[name].directory == name and may_use(caller, name)
            ]
        )

    def server_info(self, _: models_pb.GetServerInfoRequest) -> models_pb.GetServerInfoResponse:
        """Versions and choices of this process."""
        build = self._build()
        return models_pb.GetServerInfoResponse(
            version=build.version,
            grpcio=build.grpcio,
            onnxruntime=build.onnxruntime,
            provider=build.provider,
            transport=build.transport,
            transport_problem=build.transport_problem or "",
            metrics_address=build.metrics_address,
            process_id=os.getpid(),
            started_ms=round(build.started_s * 1000),
            usable_cores=build.usable_cores,
            shares_port=build.shares_port,
        )

    def load(self, request: pb.RepositoryModelLoadRequest, done: Done) -> None:
        """Load a model from disk and serve it."""
        _check_target(request.repository_name, request.model_name)
        for name in request.parameters:
            if name == "config" or name.startswith("file:"):
                raise Unsupported(f"parameter {name[:64]!r}: models come from the repository alone")
        again = _flag(request.parameters, "reload")
        self._changeable().load(request.model_name, done, again=again)

    def unload(self, request: pb.RepositoryModelUnloadRequest, done: Done) -> None:
        """Unload a model."""
        _check_target(request.repository_name, request.model_name)
        # Triton's parameter for ensembles; here no model depends on another.
        _flag(request.parameters, "unload_dependents")
        self._changeable().unload(request.model_name, done)

    def set_label(self, request: models_pb.SetLabelRequest, done: LabelDone) -> None:
        """Set a label to a version, or remove it."""
        _check_target("", request.model_name)
        if not is_label(request.label):
            raise InvalidRequest(f"label: expected {LABEL_FORM}, got {request.label[:64]!r}")
        if request.version and not is_version(request.version):
            raise InvalidRequest(f"version: expected a number from 1, got {request.version}")
        number = request.version or None
        self._changeable().set_label(request.model_name, request.label, number, done)

    def _changeable(self) -> Repository:
        if not self._is_explicit:
            # The first words are Triton's.
            raise Unsupported(
                "explicit model load / unload is not allowed: see --model-control explicit"
            )
        return self._repository


def deferred(
    request_type: type[M],
    method: Callable[[M, Callable[[Exception | T], None]], None],
    response: Callable[[T], Message],
) -> Unary:
    """The handler of a method that ends later, on any thread, by calling its second argument.

    The request names a model, which its caller must be allowed to use.

    Args:
        response: the message for the result with which the method ends.
    """

    def handle(call: Call, payload: bytes) -> None:
        request = parse_small(request_type, payload)
        check_model(call.caller, request.model_name)

        def done(outcome: Exception | T) -> None:
            if isinstance(outcome, Exception):
                fail(call, outcome)
            else:
                call.finish(grpc.StatusCode.OK, message=response(outcome).SerializeToString())

        method(request, done)

    return Unary(handle)


def _check_target(repository: str, model: str) -> None:
    if repository:
        raise Unsupported(f"repository name: expected none, got {repository[:64]!r}")
    if not model:
        raise InvalidRequest("model name: expected one, got none")


def _flag(parameters: Parameters, known: str) -> bool:
    """The value of the only known parameter; False if it is absent."""
    for name, value in parameters.items():
        if name != known or value.WhichOneof("parameter_choice") != "bool_param":
            raise InvalidRequest(f"parameters: expected {known!r} as a bool, got {name[:64]!r}")
    return parameters[known].bool_param if known in parameters else False


def _model(name: str, model: ModelVersions) -> models_pb.Model:
    default = model.default if model.default.state is State.READY else None
    contract = default.model.contract if default and default.model else None
    return models_pb.Model(
        name=name,
        task=contract.task if contract else "",
        answering=default.version if default else "",
        versions=map(_version, model.versions.values()),
        on_disk=map(str, model.on_disk),
    )


def _version(entry: Entry) -> models_pb.Version:
    model = entry.model
    decision = model.scheduler.decision if model else None
    unserved = model.signature.unserved if model else {}
    parity = model.contract.parity if model and model.contract else None
    return models_pb.Version(
        version=entry.version,
        labels=entry.labels,
        state=entry.state.value,
        reason=entry.reason,
        since_ms=round(entry.since_s * 1000),
        provider=model.provider if model else "",
        parity=parity.max_absolute if parity else None,
        golden=model.golden if model else None,
        batched=decision.is_batched if decision else None,
        batching_reason=decision.reason if decision else "",
        unserved_outputs=[f"{name}: {kind}" for name, kind in unserved.items()],
        threads=model.threads if model else 0,
        instances=model.instances if model else 0,
    )
