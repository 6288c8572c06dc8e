"""A minimal OpenTelemetry collector within the test's process."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_HANG_S = 30.0


class Collector:
    """The received spans and their resources."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.resources: list[dict[str, object]] = []
        self._spans: list[Span] = []
        self._changed = threading.Condition()

    def export(self, request: service.ExportTraceServiceRequest, _context: object) -> object:
        """Answers `Export`."""
        with self._changed:
            for each in request.resource_spans:
                self.resources.append(attributes(each.resource))
                for scope in each.scope_spans:
                    self._spans.extend(scope.spans)
            self._changed.notify_all()
        return service.ExportTraceServiceResponse()

    def wait_for(self, is_there: Callable[[list[Span]], bool]) -> list[Span]:
        """Wait until a condition holds for the received spans; all of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_there(self._spans), _HANG_S), self._spans
            return list(self._spans)


def attributes(holder: object) -> dict[str, object]:
    """The attributes of a span, an event or a resource as plain values."""
    pairs = holder.attributes  # type: ignore[attr-defined]
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


@contextmanager
def collecting(collector: Collector) -> Iterator[None]:
    """Listen on a free port for as long as the block runs."""
    method = grpc.unary_unary_rpc_method_handler(
        collector.export,
        request_deserializer=service.ExportTraceServiceRequest.FromString,
        response_serializer=service.ExportTraceServiceResponse.SerializeToString,
    )
    name, method_name = _EXPORT.strip("/").split("/")
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {method_name: method}),)
    )
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield
    finally:
        server.stop(0)
