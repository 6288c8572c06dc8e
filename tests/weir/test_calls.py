from typing import Any

from grpc_health.v1 import health_pb2

from server.pb import inference_pb2 as pb
from weir import calls, wire

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


def test_every_path_is_a_method_of_the_protocol() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    assert {call.path for call in EVERY_CALL} | {wire.STREAM_INFER} == methods


def test_the_paths_of_health_are_those_of_its_service() -> None:
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    assert {calls.health().path, calls.WATCH} <= methods


def test_an_empty_answer_is_an_answer() -> None:
    for call in EVERY_CALL:
        assert call.read(b"") is not None
