"""Requests → OpenTelemetry's spans, sent to a collector over OTLP: the only importer of opentelemetry.

That is the extra `otel`; this module is imported only where there is a collector.

Spans are made once a request has ended, from times that were noted anyway. Thread: the SDK's own, which sends them, and keeps
a bounded number while the collector is slow or down.

What the SDK reads from the environment (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_…`) holds; who is
sampled, the server decides.
"""

from importlib.metadata import version as installed_version

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from weir.server.telemetry.request_record import RequestRecord
from weir.server.telemetry.stations import Station, stations
from weir.server.telemetry.trace_context import TraceContext

# The server's fault, or its limits: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/.
_ERRORS = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)


class Traces:
    """Makes spans; used by one thread.

    Args:
        provider: of tracers, with what they are sent by.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("weir", installed_version("weir"))

    def trace(self, record: RequestRecord) -> TraceContext:
        """Make the spans of a request; the first of them."""
        offset_ns = record.began_ns - round(record.began_s * 1e9)
        span = self._tracer.start_span(
            record.method.lstrip("/"),
            context=_parent_of(record),
            kind=trace.SpanKind.SERVER,
            attributes=_attributes_of(record),
            start_time=record.began_ns,
        )
        if record.code in _ERRORS:
            span.set_status(trace.StatusCode.ERROR, record.code.name)
        inside = trace.set_span_in_context(span)
        for station in stations(record):
            self._record(station, inside, offset_ns)
        span.end(offset_ns + round(record.ended_s * 1e9))
        own = span.get_span_context()
        return TraceContext(
            trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id), is_sampled=True
        )

    def close(self) -> None:
        """Send what is left; may take as long as the SDK waits for a collector."""
        self._provider.shutdown()

    def _record(self, station: Station, inside: Context, offset_ns: int) -> None:
        span = self._tracer.start_span(
            station.name,
            context=inside,
            attributes=station.attributes,
            start_time=offset_ns + round(station.start_s * 1e9),
        )
        for name, moment_s in station.events.items():
            span.add_event(name, timestamp=offset_ns + round(moment_s * 1e9))
        for inner in station.inner:
            self._record(inner, trace.set_span_in_context(span), offset_ns)
        span.end(offset_ns + round(station.end_s * 1e9))


def open_traces(endpoint: str) -> Traces:
    """Spans for the collector at `http://host:port`, or `https://…`."""
    own = Resource.create({"service.name": "weir", "service.version": installed_version("weir")})
    # What the environment says of the service stands above that.
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=own.merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Traces(provider)


def _parent_of(record: RequestRecord) -> Context:
    """The caller's span, if it told one; never that of this thread."""
    if record.parent is None:
        return Context()
    caller = trace.SpanContext(
        int(record.parent.trace_id, 16),
        int(record.parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(caller), Context())


def _attributes_of(record: RequestRecord) -> dict[str, str | int]:
    service, _, method = record.method.lstrip("/").rpartition("/")
    number: int = record.code.value[0]
    attributes: dict[str, str | int] = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": number,
    }
    if record.model:
        attributes |= {"weir.model": record.model, "weir.version": record.version}
    if record.rows:
        attributes["weir.rows"] = record.rows
    return attributes
