"""A small server of the protocol, on the public `grpc.server`, for the client's tests.

Its models are named after their behaviour: `echo` returns its one input, `sum` adds two, `refuse`
ends each call with the status in the request's parameter `status`, `whisper` does so on a stream
without a status, `stuck` never answers, `mute` answers with invalid bytes, `threes` classifies
every picture as a three, `steady` forecasts the last value of a series twice, `mirror` answers a
sequence with itself, `flaky` rejects every second call.

`Classify` names a picture by its size in bytes, and rejects those that begin with "broken"; it
rejects a "crowded" one twice before it answers. `fake_tasks` handles texts and series,
`fake_models` model control.
"""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from numpy.typing import NDArray

from tests.unit.weir.fake_models import FakeModels
from tests.unit.weir.fake_tasks import FakeTasks
from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb
from weir.protocol.datatypes import datatype_of, from_raw, to_raw

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
MODELS = {
    "sum": ["a", "b"],
    "threes": ["image"],
    "steady": ["history"],
    "mirror": ["tokens", "lengths"],
    **{n: ["x"] for n in ("echo", "refuse", "stuck", "mute", "whisper", "flaky")},
}


@dataclass
class FakeServer:
    """A running server: where it is, and what it saw."""

    target: str
    started: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    metadata: dict[str, str | bytes] = field(default_factory=dict)
    calls: Iterator[int] = field(default_factory=itertools.count)
    requests: list[pb.ModelInferRequest] = field(default_factory=list)
    pictures: list[tasks_pb.ClassifyRequest] = field(default_factory=list)
    tasks: FakeTasks = field(default_factory=FakeTasks)
    models: FakeModels = field(default_factory=FakeModels)
    peers: set[str] = field(default_factory=set)
    health: list[str] = field(default_factory=lambda: ["NOT_SERVING", "SERVING"])

    def infer(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.ModelInferRequest.FromString(body)
        self.requests.append(request)
        self.peers.add(context.peer())
        self.metadata.update(dict(context.invocation_metadata()))
        match request.model_name:
            case "refuse":
                context.set_trailing_metadata((("grpc-retry-pushback-ms", "250"),))
                status = request.parameters["status"].string_param
                context.abort(grpc.StatusCode[status], f"refused with {status}")
            case "stuck":
                self.started.set()
                gone = threading.Event()
                context.add_callback(gone.set)
                gone.wait(10)
                self.cancelled.set()
            case "flaky" if next(self.calls) % 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "every second call")
            case "mute":
                return b"\xff\xff"
            case name if name not in MODELS:
                context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name!r}")
        return _answer(request).SerializeToString()

    def stream_infer(
        self, bodies: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Answers each pair of requests in the wrong order."""
        early: list[bytes] = []
        for body in bodies:
            early.append(self._stream_answer(body))
            if len(early) == 2:
                yield from reversed(early)
                early.clear()
        yield from early

    def _stream_answer(self, body: bytes) -> bytes:
        request = pb.ModelInferRequest.FromString(body)
        if request.model_name in {"refuse", "whisper"}:
            refusal = pb.ModelStreamInferResponse(error_message="refused")
            refusal.infer_response.id = request.id
            if request.model_name == "refuse":
                refusal.infer_response.parameters["grpc_status"].string_param = "NOT_FOUND"
            return refusal.SerializeToString()
        return pb.ModelStreamInferResponse(infer_response=_answer(request)).SerializeToString()

    def model_metadata(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        name = pb.ModelMetadataRequest.FromString(body).name
        if name not in MODELS:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name!r}")
        answer = pb.ModelMetadataResponse(name=name, versions=["1"], platform="fake")
        if name == "threes":
            answer.inputs.add(name="image", datatype="UINT8", shape=[-1, 28, 28, 1])
            answer.outputs.add(name="probabilities", datatype="FP32", shape=[-1, 10])
            return answer.SerializeToString()
        if name == "steady":
            answer.inputs.add(name="history", datatype="FP32", shape=[-1, 3, 1])
            answer.outputs.add(name="forecast", datatype="FP32", shape=[-1, 2])
            return answer.SerializeToString()
        for tensor in MODELS[name]:
            answer.inputs.add(name=tensor, datatype="INT64", shape=[-1, 2])
        answer.outputs.add(name="y", datatype="INT64", shape=[-1, 2])
        return answer.SerializeToString()

    def model_ready(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        name = pb.ModelReadyRequest.FromString(body).name
        if name not in MODELS:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name!r}")
        return pb.ModelReadyResponse(ready=True).SerializeToString()

    def model_config(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        answer = pb.ModelConfigResponse()
        answer.config.name = pb.ModelConfigRequest.FromString(body).name
        return answer.SerializeToString()

    def model_statistics(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        answer = pb.ModelStatisticsResponse()
        answer.model_stats.add(name="echo", version="1", inference_count=3)
        return answer.SerializeToString()

    def repository_index(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        answer = pb.RepositoryIndexResponse()
        answer.models.add(name="echo", version="1", state="READY")
        if not pb.RepositoryIndexRequest.FromString(body).ready:
            answer.models.add(name="broken", version="2", state="UNAVAILABLE", reason="no graph")
        return answer.SerializeToString()

    def classify(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = tasks_pb.ClassifyRequest.FromString(body)
        self.pictures.append(request)
        if request.model_name == "mute":
            return b""
        if request.model_name == "good":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "model 'good' takes no pictures")
        if request.model_name != "threes":
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.model_name!r}")
        answer = tasks_pb.ClassifyResponse(model_name="threes", model_version="1")
        for position, picture in enumerate(request.pictures):
            if picture.encoded.startswith(b"broken"):
                what = f"pictures[{position}]: the JPEG is damaged or cut short"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)
            if picture.encoded.startswith(b"crowded") and next(self.calls) < 2:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", "1"),))
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many wait")
            size = len(picture.encoded) or len(picture.raw.values)
            classes = answer.results.add().classes
            classes.add(label=f"of {size} bytes", index=3, probability=0.75)
            classes.add(index=4, probability=0.25)
            del classes[request.top_k :]
        return answer.SerializeToString()

    def check(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        service = health_pb2.HealthCheckRequest.FromString(body).service
        if service not in {"", *MODELS}:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {service!r}")
        return _health(self.health[-1])

    def watch(self, body: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from map(_health, self.health)


def _health(status: str) -> bytes:
    value = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
    return health_pb2.HealthCheckResponse(status=value).SerializeToString()


def _answer(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    arrays = [
        from_raw(raw, tensor.datatype, tuple(tensor.shape))
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    if request.model_name == "threes":
        return _threes(len(arrays[0]))
    if request.model_name == "steady":
        return _steady(arrays[0])
    if request.model_name == "mirror":
        return _mirror(arrays)
    result = arrays[0] if len(arrays) == 1 else np.asarray(sum(arrays))
    answer = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    top = request.outputs[0].parameters["classification"].int64_param if request.outputs else 0
    if top:
        ranked = [[f"{row[i]}:{i}:n{i}" for i in np.argsort(-row)[:top]] for row in result]
        result = np.array(ranked, object)
    answer.outputs.add(name="y", datatype=datatype_of(result.dtype), shape=result.shape)
    answer.raw_output_contents.append(to_raw(result))
    return answer


def _threes(rows: int) -> pb.ModelInferResponse:
    answer = pb.ModelInferResponse(model_name="threes", model_version="1")
    answer.outputs.add(name="probabilities", datatype="FP32", shape=[rows, 10])
    answer.raw_output_contents.append(to_raw(np.tile(np.eye(10, dtype="f4")[3], (rows, 1))))
    return answer


def _steady(histories: NDArray[Any]) -> pb.ModelInferResponse:
    answer = pb.ModelInferResponse(model_name="steady", model_version="1")
    answer.outputs.add(name="forecast", datatype="FP32", shape=[len(histories), 2])
    answer.raw_output_contents.append(to_raw(histories[:, [-1, -1], 0]))
    return answer


def _mirror(arrays: list[NDArray[Any]]) -> pb.ModelInferResponse:
    answer = pb.ModelInferResponse(model_name="mirror", model_version="1")
    for name, array in zip(("output_tokens", "output_lengths"), arrays, strict=True):
        answer.outputs.add(name=name, datatype="INT64", shape=array.shape)
        answer.raw_output_contents.append(to_raw(array))
    return answer


def handlers(fake: FakeServer) -> list[grpc.GenericRpcHandler]:
    unary, constant = grpc.unary_unary_rpc_method_handler, pb.ServerMetadataResponse(name="fake")
    inference: dict[str, Handler] = {
        "ServerLive": unary(lambda _, __: pb.ServerLiveResponse(live=True).SerializeToString()),
        "ServerReady": unary(lambda _, __: pb.ServerReadyResponse(ready=True).SerializeToString()),
        "ServerMetadata": unary(lambda _, __: constant.SerializeToString()),
        "ModelReady": unary(fake.model_ready),
        "ModelMetadata": unary(fake.model_metadata),
        "ModelConfig": unary(fake.model_config),
        "ModelStatistics": unary(fake.model_statistics),
        "RepositoryIndex": unary(fake.repository_index),
        "ModelInfer": unary(fake.infer),
        **fake.models.inference_handlers(),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(fake.stream_infer),
    }
    health: dict[str, Handler] = {
        "Check": unary(fake.check),
        "Watch": grpc.unary_stream_rpc_method_handler(fake.watch),
    }
    return [
        grpc.method_handlers_generic_handler("inference.GRPCInferenceService", inference),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        grpc.method_handlers_generic_handler(
            "weir.v1.Tasks", {"Classify": unary(fake.classify), **fake.tasks.handlers()}
        ),
        grpc.method_handlers_generic_handler("weir.v1.Models", fake.models.handlers()),
    ]
