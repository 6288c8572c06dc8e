from typing import Any

from grpc_health.v1 import health_pb2

from weir.client import rpc
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb

EVERY_CALL: list[rpc.Call[Any]] = [
    rpc.metadata("m"),
    rpc.server_metadata(),
    rpc.config("m"),
    rpc.statistics(),
    rpc.index(),
    rpc.server_live(),
    rpc.server_ready(),
    rpc.model_ready("m"),
    rpc.infer(rpc.infer_request("m", {})),
]
CONTROL: list[rpc.Call[Any]] = [
    rpc.load("m", reload=False),
    rpc.unload("m"),
]


def test_every_path_is_a_method_of_the_protocol() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    paths = {call.path for call in EVERY_CALL + CONTROL}
    assert paths | {rpc.STREAM_INFER} == methods


def test_the_paths_of_models_are_those_of_their_service() -> None:
    service = models_pb.DESCRIPTOR.services_by_name["Models"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    calls = (rpc.models(), rpc.server_info(), rpc.set_label("m", "a", 1))
    assert {call.path for call in calls} == methods


def test_the_paths_of_health_are_those_of_its_service() -> None:
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}

    assert {rpc.health().path, rpc.WATCH} <= methods


def test_an_empty_answer_is_an_answer() -> None:
    for call in EVERY_CALL:
        assert call.read(b"") is not None
