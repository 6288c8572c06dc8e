import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from tests.unit.server.conftest import AFFINE_GOLDEN, Backend, Clock, FakeCall, parse_pool
from weir.bundle.golden import Golden
from weir.protocol import inference_pb2 as pb
from weir.server.repository.registry import Registry
from weir.server.scheduling.admission import Admission
from weir.server.services.inference import SERVICE, InferenceService
from weir.server.transport.base import Stream, Unary
from weir.server.transport.status import guarded

M = TypeVar("M", bound=Message)

REQUIRED = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
)
OFFERED_TOO = ("ModelStreamInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex")
BROKEN = Golden(AFFINE_GOLDEN.inputs, {"y": np.zeros((2, 4), np.float32)})


class Server:
    """A servicer over a repository of a good and a broken model."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self.admission = Admission(
            backend.repository.get,
            backend.metrics,
            parse_pool(clock),
            default_deadline_s=60.0,
            clock=clock,
        )
        self.handlers = InferenceService(backend.repository, self.admission).handlers()

    def handle(self, method: str, payload: bytes) -> FakeCall:
        call = FakeCall(method=f"/{SERVICE}/{method}")
        handler = self.handlers[call.method]
        assert isinstance(handler, Unary)
        guarded(call, handler.handle, call, payload)  # as a transport does
        return call

    def ask(self, method: str, request: Message, response_type: type[M]) -> M:
        call = self.handle(method, request.SerializeToString())
        assert call.wait_until_finished() is grpc.StatusCode.OK, call.details
        assert call.message is not None
        return response_type.FromString(call.message)

    def refuse(self, method: str, request: Message) -> tuple[grpc.StatusCode, str]:
        call = self.handle(method, request.SerializeToString())
        return call.wait_until_finished(), call.details


@pytest.fixture
def server(
    publish: Callable[..., Path], open_backend: Callable[[], Backend], clock: Clock
) -> Server:
    publish("affine", version=3)
    publish("broken", golden=BROKEN)
    return Server(open_backend(), clock)


def test_calls_are_those_of_the_protocol(server: Server) -> None:
    assert SERVICE == "inference.GRPCInferenceService"
    assert set(server.handlers) == {f"/{SERVICE}/{name}" for name in (*REQUIRED, *OFFERED_TOO)}
    assert isinstance(server.handlers[f"/{SERVICE}/ModelStreamInfer"], Stream)


def test_server_is_live_ready_and_named(server: Server) -> None:
    metadata = server.ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)

    assert server.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    assert server.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
    assert metadata.name == "weir"
    assert metadata.version
    # perf_analyzer asks for statistics only where they are listed.
    assert {"binary_tensor_data", "classification", "statistics"} <= set(metadata.extensions)


def test_draining_server_is_live_but_not_ready(server: Server) -> None:
    server.admission.drain()

    request = pb.ModelReadyRequest(name="affine")
    assert server.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    assert not server.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
    assert not server.ask("ModelReady", request, pb.ModelReadyResponse).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        pytest.param("affine", "", True, id="served"),
        pytest.param("affine", "3", True, id="by version"),
        pytest.param("broken", "", False, id="known and not ready"),
        pytest.param("other", "", False, id="unknown model"),
        pytest.param("affine", "4", False, id="unknown version"),
        pytest.param("affine", "x", False, id="no label"),
    ],
)
def test_ready_is_per_model(
    name: str,
    version: str,
    ready: bool,  # noqa: FBT001
    server: Server,
) -> None:
    request = pb.ModelReadyRequest(name=name, version=version)

    assert server.ask("ModelReady", request, pb.ModelReadyResponse).ready is ready


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        pytest.param("ModelMetadata", pb.ModelMetadataRequest, id="metadata"),
        pytest.param("ModelConfig", pb.ModelConfigRequest, id="config"),
        pytest.param("ModelStatistics", pb.ModelStatisticsRequest, id="statistics"),
    ],
)
@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        pytest.param("other", "", grpc.StatusCode.NOT_FOUND, id="unknown model"),
        pytest.param("affine", "4", grpc.StatusCode.NOT_FOUND, id="unknown version"),
        pytest.param("affine", "x", grpc.StatusCode.NOT_FOUND, id="no label"),
        pytest.param("affine", "1x", grpc.StatusCode.INVALID_ARGUMENT, id="no version"),
    ],
)
def test_unknown_models_are_not_found(  # noqa: PLR0917 - half of them are parameters of one case
    method: str,
    request_type: Callable[..., Message],
    name: str,
    version: str,
    code: grpc.StatusCode,
    server: Server,
) -> None:
    assert server.refuse(method, request_type(name=name, version=version))[0] is code


@pytest.mark.parametrize(
    ("name", "version"), [("affine", "1x"), ("", "")], ids=["no version", "no name"]
)
def test_ready_of_no_name_or_version_is_refused(name: str, version: str, server: Server) -> None:
    code, _ = server.refuse("ModelReady", pb.ModelReadyRequest(name=name, version=version))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        pytest.param("ModelMetadata", pb.ModelMetadataRequest, id="metadata"),
        pytest.param("ModelConfig", pb.ModelConfigRequest, id="config"),
        pytest.param("ModelStatistics", pb.ModelStatisticsRequest, id="statistics"),
    ],
)
def test_broken_model_is_unavailable(
    method: str, request_type: Callable[..., Message], server: Server
) -> None:
    code, details = server.refuse(method, request_type(name="broken"))

    assert code is grpc.StatusCode.UNAVAILABLE
    assert details.startswith("model 'broken' version 1 is unavailable: golden output 'y' differs")


def test_model_is_described(server: Server) -> None:
    metadata = server.ask(
        "ModelMetadata", pb.ModelMetadataRequest(name="affine"), pb.ModelMetadataResponse
    )
    config = server.ask(
        "ModelConfig", pb.ModelConfigRequest(name="affine"), pb.ModelConfigResponse
    ).config

    assert (metadata.name, list(metadata.versions)) == ("affine", ["3"])
    assert (config.name, config.max_batch_size) == ("affine", 32)


def test_index_lists_every_model_and_why_one_is_not_ready(server: Server) -> None:
    index = server.ask("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)

    rows = {each.name: (each.version, each.state) for each in index.models}
    assert rows == {"affine": ("3", "READY"), "broken": ("1", "UNAVAILABLE")}
    reasons = {each.name: each.reason for each in index.models}
    assert reasons["affine"] == ""
    assert reasons["broken"].startswith("golden output 'y' differs by ")


def test_index_of_what_is_ready_leaves_the_rest_out(server: Server) -> None:
    request = pb.RepositoryIndexRequest(ready=True)

    index = server.ask("RepositoryIndex", request, pb.RepositoryIndexResponse)

    assert [each.name for each in index.models] == ["affine"]


def test_named_repository_is_not_offered(server: Server) -> None:
    request = pb.RepositoryIndexRequest(repository_name="other")

    assert server.refuse("RepositoryIndex", request)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_statistics_of_all_leave_the_broken_out(server: Server) -> None:
    statistics = server.ask(
        "ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse
    )

    assert [(each.name, each.version) for each in statistics.model_stats] == [("affine", "3")]


@pytest.mark.parametrize("method", [*REQUIRED, *OFFERED_TOO[1:]])
def test_malformed_message_is_refused(method: str, server: Server) -> None:
    call = server.handle(method, b"\xff\xff")

    assert call.wait_until_finished() is grpc.StatusCode.INVALID_ARGUMENT
    assert call.details == f"the message is no valid {method}Request"


def test_bug_in_a_call_is_internal_and_sends_its_id(
    open_backend: Callable[[], Backend],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = open_backend()

    def entries(_: Registry) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(Registry, "entries", entries)

    with caplog.at_level(logging.ERROR):
        code, details = Server(backend, clock).refuse(
            "RepositoryIndex", pb.RepositoryIndexRequest()
        )
    monkeypatch.undo()

    assert code is grpc.StatusCode.INTERNAL
    assert details.startswith("internal error ")
    assert "secret" not in details
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize("rows", [1, 32], ids=["small", "a full batch"])
def test_infer_answers(rows: int, server: Server) -> None:
    request = pb.ModelInferRequest(model_name="affine", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    request.raw_input_contents.append(bytes(16 * rows))

    response = server.ask("ModelInfer", request, pb.ModelInferResponse)

    assert response.id == "7"
    assert response.raw_output_contents[0] == np.ones((rows, 4), "<f4").tobytes()


def test_large_message_is_parsed_by_a_worker(server: Server) -> None:
    """Its refusal comes from there, after the handler returned."""
    request = pb.ModelInferRequest(model_name="affine")
    request.inputs.add(name="x", datatype="FP32", shape=[1 << 16, 4])
    request.raw_input_contents.append(bytes(1 << 20))

    code, details = server.refuse("ModelInfer", request)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 32 rows" in details


def test_stream_answers(server: Server) -> None:
    call = FakeCall()
    handler = server.handlers[f"/{SERVICE}/ModelStreamInfer"]
    assert isinstance(handler, Stream)
    handler.handle(call)
    request = pb.ModelInferRequest(model_name="affine", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(bytes(16))

    call.deliver(request.SerializeToString())
    call.wait_until_sent(1)

    (message,) = call.sent
    answer = pb.ModelStreamInferResponse.FromString(message).infer_response
    assert answer.id == "7"
    assert answer.raw_output_contents[0] == np.ones(4, "<f4").tobytes()
