from typing import Any

from grpc_health.v1 import health_pb2

from weir.client import calls, operations, wire
from weir.protocol import inference_pb2 as pb
from weir.protocol.weir.v1 import models_pb2 as models_pb

EVERY_CALL: list[wire.Call[Any]] = [
    calls.metadata("m"),
    calls.server_metadata(),
    calls.config("m"),
    calls.statistics(),
    calls.index(),
    calls.server_live(),
    calls.server_ready(),
    calls.model_ready("m"),
    wire.infer(wire.infer_request("m", {})),
]
CONTROL: list[wire.Call[Any]] = [
    operations.load("m", reload=False),
    operations.unload("m"),
]


def test_every_path_is_a_method_of_the_protocol() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    paths = {call.path for call in EVERY_CALL + CONTROL}
    assert paths | {wire.STREAM_INFER} == methods


def test_the_paths_of_models_are_those_of_their_service() -> None:
    service = models_pb.DESCRIPTOR.services_by_name["Models"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    assert {operations.models().path, operations.set_label("m", "a", 1).path} == methods


def test_the_paths_of_health_are_those_of_its_service() -> None:
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    assert {calls.health().path, calls.WATCH} <= methods


def test_an_empty_answer_is_an_answer() -> None:
    for call in EVERY_CALL:
        assert call.read(b"") is not None
