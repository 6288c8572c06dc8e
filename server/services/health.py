"""gRPC's own services on our transport: health and reflection.

Their behaviour is that of grpcio-health-checking and grpcio-reflection; this module only hands
messages over.
"""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from weir.server.transport.base import Call, Handlers, Stream, Unary

HEALTH_SERVICE = health.SERVICE_NAME
REFLECTION_SERVICE = reflection.SERVICE_NAME

_STATUSES = health_pb2.HealthCheckResponse
_MAX_NAME_CHARACTERS = 128
_MAX_UNKNOWN_NAMES = 1024


class Health:
    """`grpc.health.v1`: the server under the empty name, each model under its own."""

    def __init__(self) -> None:
        # Typed loosely: of grpcio's context it is given only what it uses.
        self._servicer: Any = health.HealthServicer()
        self._known: dict[str, bool] = {}
        self._unknown: set[str] = set()
        self.set("", is_serving=False)

    def set(self, name: str, *, is_serving: bool) -> None:
        """Tell everybody who asks or watches; what is no news is not told again."""
        if self._known.get(name) is is_serving:
            return
        self._known[name] = is_serving
        self._servicer.set(name, _STATUSES.SERVING if is_serving else _STATUSES.NOT_SERVING)

    def stop(self) -> None:
        """NOT_SERVING for every name, for good."""
        self._servicer.enter_graceful_shutdown()

    def handlers(self) -> Handlers:
        """By full method name."""
        return {
            f"/{HEALTH_SERVICE}/Check": Unary(self._check),
            f"/{HEALTH_SERVICE}/Watch": Stream(self._watch, kind="server_stream"),
        }

    def _check(self, call: Call, payload: bytes) -> None:
        context = _Context(call)
        response = self._servicer.Check(_health_request(payload), context)
        if context.code is grpc.StatusCode.OK:
            call.finish(grpc.StatusCode.OK, message=response.SerializeToString())
        else:
            call.finish(context.code, "unknown service")

    def _watch(self, call: Call) -> None:
        def send(response: health_pb2.HealthCheckResponse | None) -> None:
            if response is not None:
                call.send(response.SerializeToString())

        def received(payload: bytes | None) -> None:
            if payload is None:
                call.finish(grpc.StatusCode.INVALID_ARGUMENT, "expected a request, got none")
            else:
                request = _health_request(payload)
                if self._may_watch(request.service):
                    self._servicer.Watch(request, _Context(call), send)
                else:
                    send(health_pb2.HealthCheckResponse(status=_STATUSES.SERVICE_UNKNOWN))

        call.receive(received)

    def _may_watch(self, name: str) -> bool:
        """The servicer keeps each name it was ever asked for: names nobody has are few and short."""
        if name in self._known:
            return True
        if len(name) > _MAX_NAME_CHARACTERS or len(self._unknown) >= _MAX_UNKNOWN_NAMES:
            return False
        self._unknown.add(name)
        return True


class _Context:
    """As much of grpcio's servicer context as the health servicer uses."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.code = grpc.StatusCode.OK

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self._call.on_close(callback)
        return True


def _health_request(payload: bytes) -> health_pb2.HealthCheckRequest:
    try:
        return health_pb2.HealthCheckRequest.FromString(payload)
    except DecodeError:
        # What cannot be read asks for a service that does not exist.
        return health_pb2.HealthCheckRequest(service="?")


def reflection_handlers(services: tuple[str, ...]) -> Handlers:
    """Describes these services, and itself, to whoever asks."""
    servicer = reflection.ReflectionServicer((*services, REFLECTION_SERVICE))

    def start(call: Call) -> None:
        def received(payload: bytes | None) -> None:
            if payload is None:
                call.finish(grpc.StatusCode.OK)
                return
            try:
                response = _reflect(servicer, payload)
            except DecodeError:
                call.finish(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "the message is no valid ServerReflectionRequest",
                )
                return
            # The next question is read once this answer is: a caller who reads none asks no more.
            call.send(response.SerializeToString(), lambda: call.receive(received))

        call.receive(received)

    return {f"/{REFLECTION_SERVICE}/ServerReflectionInfo": Stream(start)}


def _reflect(servicer: Any, payload: bytes) -> Any:
    """The one answer to one question."""
    request = reflection_pb2.ServerReflectionRequest.FromString(payload)
    return next(servicer.ServerReflectionInfo(iter([request]), None))
