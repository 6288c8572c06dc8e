"""The calls of those who run a server: what it holds, load and unload, labels. No I/O."""

from datetime import UTC, datetime, timedelta

from weir.client.errors import Internal, UsageError
from weir.client.results import ModelInfo, VersionInfo
from weir.client.wire import SERVICE, Call, parse
from weir.protocol import inference_pb2 as pb
from weir.protocol.weir.v1 import models_pb2 as models_pb

MODELS = "weir.v1.Models"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_VERSION = 2**63 - 1


def models() -> Call[list[ModelInfo]]:
    """The call for every model with its versions."""
    return Call(f"/{MODELS}/ListModels", b"", _read_models)


def load(model: str, *, reload: bool) -> Call[None]:
    """The call that brings what is on disk of a model into service."""
    request = pb.RepositoryModelLoadRequest(model_name=model)
    if reload:
        request.parameters["reload"].bool_param = True
    return Call(f"/{SERVICE}/RepositoryModelLoad", request.SerializeToString(), _read_nothing)


def unload(model: str) -> Call[None]:
    """The call that takes a model out of service."""
    request = pb.RepositoryModelUnloadRequest(model_name=model)
    return Call(f"/{SERVICE}/RepositoryModelUnload", request.SerializeToString(), _read_nothing)


def set_label(model: str, label: str, version: int | None) -> Call[None]:
    """The call that moves a label, or removes it (None).

    Raises:
        UsageError: `version` is no version.
    """
    if version is not None and not 1 <= version <= _MAX_VERSION:
        raise UsageError(f"version: expected a number from 1, got {version}")
    request = models_pb.SetLabelRequest(model_name=model, label=label, version=version or 0)
    return Call(f"/{MODELS}/SetLabel", request.SerializeToString(), _read_nothing)


def _read_nothing(_: bytes) -> None:
    """What the answer says is that it is done."""


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


def _version(version: models_pb.Version) -> VersionInfo:
    try:
        since = _EPOCH + timedelta(milliseconds=version.since_ms)
    except OverflowError as error:
        raise Internal(f"since_ms: expected a time, got {version.since_ms}") from error
    return VersionInfo(
        version=version.version,
        labels=tuple(version.labels),
        state=version.state,
        reason=version.reason,
        since=since,
        provider=version.provider,
        parity=version.parity if version.HasField("parity") else None,
        golden=version.golden if version.HasField("golden") else None,
    )
