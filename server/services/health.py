"""gRPC's standard services on Weir's transports: health checking and server reflection.

grpcio-health-checking and grpcio-reflection implement them; this module passes their messages.
"""

from collections.abc import Callable
from typing import Any

import grpc

from weir.protocol.pool import POOL
from weir.server.access.authorization import check_model
from weir.server.errors import InvalidRequest, StartError
from weir.server.protocol.request_decoder import parse_small
from weir.server.transport.base import Call, Handlers, Stream, Unary
from weir.server.transport.completion_queue import TESTED

try:
    from grpc_health.v1 import health, health_pb2
    from grpc_reflection.v1alpha import reflection, reflection_pb2
except RuntimeError as error:
    # Their generated code refuses an older grpcio.
    raise StartError(
        f"grpcio-health-checking, grpcio-reflection: expected versions that take grpcio "
        f"{grpc.__version__}, got newer ones: pip install '{TESTED}' "
        f"grpcio-health-checking=={grpc.__version__} grpcio-reflection=={grpc.__version__}"
    ) from error

HEALTH_SERVICE = health.SERVICE_NAME
REFLECTION_SERVICE = reflection.SERVICE_NAME

_STATUSES = health_pb2.HealthCheckResponse
_MAX_NAME_CHARACTERS = 128
_MAX_UNKNOWN_NAMES = 1024


class HealthService:
    """`grpc.health.v1`: the server under the empty name, each model under its own."""

    def __init__(self) -> None:
        # Typed loosely: it gets a context with only the methods that it uses.
        self._servicer: Any = health.HealthServicer()
        self._known: dict[str, bool] = {}
        self._unknown: set[str] = set()
        self.set("", is_serving=False)

    def set(self, name: str, *, is_serving: bool) -> None:
        """Set the status of a name, and send it to its watches if it changed."""
        if self._known.get(name) is is_serving:
            return
        self._known[name] = is_serving
        self._servicer.set(name, _STATUSES.SERVING if is_serving else _STATUSES.NOT_SERVING)

    def stop(self) -> None:
        """Set every name to NOT_SERVING; later changes have no effect."""
        self._servicer.enter_graceful_shutdown()

    def handlers(self) -> Handlers:
        """The service's handlers, by full method name."""
        return {
            f"/{HEALTH_SERVICE}/Check": Unary(self._check),
            f"/{HEALTH_SERVICE}/Watch": Stream(self._watch, kind="server_stream"),
        }

    def _check(self, call: Call, payload: bytes) -> None:
        context = _Context(call)
        request = _health_request(payload)
        if request.service:
            check_model(call.caller, request.service)
        response = self._servicer.Check(request, context)
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
                raise InvalidRequest("expected a request, got none")
            request = _health_request(payload)
            if request.service:
                check_model(call.caller, request.service)
            if self._may_watch(request.service):
                self._servicer.Watch(request, _Context(call), send)
            else:
                send(health_pb2.HealthCheckResponse(status=_STATUSES.SERVICE_UNKNOWN))

        call.receive(received)

    def _may_watch(self, name: str) -> bool:
        """Bound the unknown names: the servicer keeps each name that was ever watched."""
        if name in self._known:
            return True
        if len(name) > _MAX_NAME_CHARACTERS or len(self._unknown) >= _MAX_UNKNOWN_NAMES:
            return False
        self._unknown.add(name)
        return True


class _Context:
    """The part of grpcio's servicer context that the health servicer uses."""

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
        return parse_small(health_pb2.HealthCheckRequest, payload)
    except InvalidRequest:
        # A malformed request counts as one for a service that does not exist.
        return health_pb2.HealthCheckRequest(service="?")


def reflection_handlers(services: tuple[str, ...]) -> Handlers:
    """The handlers of the reflection service, which describes these services and itself."""
    for standard in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        POOL.AddSerializedFile(standard.serialized_pb)
    servicer: Any = reflection.ReflectionServicer((*services, REFLECTION_SERVICE), pool=POOL)

    def start(call: Call) -> None:
        def received(payload: bytes | None) -> None:
            if payload is None:
                call.finish(grpc.StatusCode.OK)
                return
            request = parse_small(reflection_pb2.ServerReflectionRequest, payload)
            response = next(servicer.ServerReflectionInfo(iter([request]), None))
            # The next request is read once this response is sent: a client that does not read
            # is not read from.
            call.send(response.SerializeToString(), lambda: call.receive(received))

        call.receive(received)

    return {f"/{REFLECTION_SERVICE}/ServerReflectionInfo": Stream(start)}
