import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.unit.server.conftest import FakeCall
from weir.server.services.health import (
    HEALTH_SERVICE,
    REFLECTION_SERVICE,
    HealthService,
    reflection_handlers,
)
from weir.server.transport.base import Stream, Unary
from weir.server.transport.status import guarded

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def health() -> HealthService:
    return HealthService()


def check(health: HealthService, service: str) -> FakeCall:
    call = FakeCall()
    handler = health.handlers()[f"/{HEALTH_SERVICE}/Check"]
    assert isinstance(handler, Unary)
    handler.handle(call, health_pb2.HealthCheckRequest(service=service).SerializeToString())
    return call


def status(health: HealthService, service: str) -> int:
    call = check(health, service)
    assert call.code is grpc.StatusCode.OK and call.message is not None
    return health_pb2.HealthCheckResponse.FromString(call.message).status


def watch(health: HealthService, service: str) -> FakeCall:
    call = FakeCall()
    handler = health.handlers()[f"/{HEALTH_SERVICE}/Watch"]
    assert isinstance(handler, Stream)
    handler.handle(call)
    call.deliver(health_pb2.HealthCheckRequest(service=service).SerializeToString())
    return call


def seen(call: FakeCall) -> list[int]:
    return [health_pb2.HealthCheckResponse.FromString(message).status for message in call.sent]


def test_new_server_is_not_serving(health: HealthService) -> None:
    assert status(health, "") == NOT_SERVING


def test_server_and_models_have_their_own_status(health: HealthService) -> None:
    health.set("", is_serving=True)
    health.set("lenet5", is_serving=False)

    assert status(health, "") == SERVING
    assert status(health, "lenet5") == NOT_SERVING


def test_unknown_name_is_not_found(health: HealthService) -> None:
    assert check(health, "other").code is grpc.StatusCode.NOT_FOUND


def test_malformed_request_is_not_found(health: HealthService) -> None:
    call = FakeCall()
    handler = health.handlers()[f"/{HEALTH_SERVICE}/Check"]
    assert isinstance(handler, Unary)

    handler.handle(call, b"\xff")

    assert call.code is grpc.StatusCode.NOT_FOUND


def test_watch_sends_every_change(health: HealthService) -> None:
    call = watch(health, "lenet5")

    health.set("lenet5", is_serving=True)
    health.set("other", is_serving=True)
    health.set("lenet5", is_serving=False)

    assert seen(call) == [SERVICE_UNKNOWN, SERVING, NOT_SERVING]
    assert call.code is None


def test_watch_ends_when_its_client_is_gone(health: HealthService) -> None:
    call = watch(health, "")

    call.close()
    health.set("", is_serving=True)

    assert seen(call) == [NOT_SERVING]


def test_stop_sets_every_name_to_not_serving_for_good(health: HealthService) -> None:
    health.set("", is_serving=True)
    health.set("lenet5", is_serving=True)
    call = watch(health, "lenet5")

    health.stop()
    health.set("lenet5", is_serving=True)

    assert seen(call) == [SERVING, NOT_SERVING]
    assert status(health, "") == status(health, "lenet5") == NOT_SERVING


def reflect(*requests: bytes) -> FakeCall:
    call = FakeCall()
    handlers = reflection_handlers(("inference.GRPCInferenceService", HEALTH_SERVICE))
    handler = handlers[f"/{REFLECTION_SERVICE}/ServerReflectionInfo"]
    assert isinstance(handler, Stream)
    handler.handle(call)
    for request in requests:
        guarded(call, call.deliver, request)  # as a transport does
        if call.confirmations:
            call.confirm()
    return call


def test_reflection_reads_no_request_before_the_response_is_sent() -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    call = FakeCall()
    handler = reflection_handlers(())[f"/{REFLECTION_SERVICE}/ServerReflectionInfo"]
    assert isinstance(handler, Stream)
    handler.handle(call)

    call.deliver(request)

    assert not call.is_asked_for_more
    call.confirm()
    assert call.is_asked_for_more


@pytest.mark.parametrize("name", ["x" * 129, "unknown"], ids=["too long", "one too many"])
def test_unknown_names_that_are_watched_are_bounded(name: str) -> None:
    health = HealthService()
    for number in range(1024):
        watch(health, f"unknown-{number}")

    call = watch(health, name)
    health.set(name, is_serving=True)

    assert [health_pb2.HealthCheckResponse.FromString(sent).status for sent in call.sent] == [
        health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    ]


def test_reflection_lists_the_services() -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()

    call = reflect(request, request)

    for message in call.sent:
        response = reflection_pb2.ServerReflectionResponse.FromString(message)
        names = {service.name for service in response.list_services_response.service}
        assert names == {"inference.GRPCInferenceService", HEALTH_SERVICE, REFLECTION_SERVICE}
    assert len(call.sent) == 2


def test_reflection_describes_a_service() -> None:
    request = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="inference.GRPCInferenceService"
    )

    (message,) = reflect(request.SerializeToString()).sent

    response = reflection_pb2.ServerReflectionResponse.FromString(message)
    assert response.file_descriptor_response.file_descriptor_proto


def test_reflection_ends_with_its_client() -> None:
    call = reflect()

    call.deliver(None)

    assert call.code is grpc.StatusCode.OK


def test_reflection_refuses_a_malformed_request() -> None:
    assert reflect(b"\xff").code is grpc.StatusCode.INVALID_ARGUMENT
