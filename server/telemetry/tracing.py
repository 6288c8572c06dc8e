"""Traces: a recorded request becomes OpenTelemetry spans, which are sent to a collector over OTLP.

Only this module imports opentelemetry (the extra `otel`); it is imported only if a collector is
configured. Spans are created once the request has ended, from the times in its record.

Thread: OpenTelemetry's own, which sends the spans and drops them if the collector is slow or down.

The SDK reads its environment variables (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`,
`OTEL_BSP_…`), but the server decides which requests are sampled.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from weir.server.telemetry.request_record import BatchRecord, RequestRecord, TraceContext

# Errors of the server: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/.
_ERRORS = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of a request, which becomes a span; times are on the record's clock.

    Attributes:
        events: moments within the span, by name.
    """

    name: str
    start_s: float
    end_s: float
    attributes: dict[str, str | int] = field(default_factory=dict)
    events: dict[str, float] = field(default_factory=dict)
    inner: tuple["Phase", ...] = ()


def phases(record: RequestRecord) -> Iterator[Phase]:
    """The phases that a request reached, in order."""
    end_s = record.ended_s
    if record.queued_s is None:
        return
    if record.queued_s > record.arrived_s:  # an image or a text was preprocessed
        yield Phase("preprocess", record.began_s, record.queued_s)
    batch = record.batch
    yield Phase("queue", record.queued_s, end_s if batch is None else min(batch.cut_s, end_s))
    if batch is not None and batch.cut_s <= end_s:
        attributes: dict[str, str | int] = {"weir.batch": batch.key, "weir.batch_rows": batch.rows}
        inner = tuple(_batch_phases(record, batch))
        yield Phase("batch", batch.cut_s, end_s, attributes, inner=inner)


def _batch_phases(record: RequestRecord, batch: BatchRecord) -> Iterator[Phase]:
    """The run of the graph; for an encoder-decoder, also the decoder steps after it."""
    end_s = record.ended_s
    if batch.run_s is None:
        return
    # A request that passes its deadline ends while its batch still runs.
    ran_s = end_s if batch.ran_s is None else min(batch.ran_s, end_s)
    yield Phase("compute", min(batch.run_s, end_s), ran_s)
    if record.first_token_s is not None:
        attributes: dict[str, str | int] = {}
        if record.steps is not None:
            attributes["weir.steps"] = record.steps
        events = {"first token": min(record.first_token_s, end_s)}
        yield Phase("decode", ran_s, end_s, attributes, events)


class OpenTelemetryTracer:
    """Creates the spans of requests; used by one thread."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("weir", installed_version("weir"))

    def trace(self, record: RequestRecord) -> TraceContext:
        """Create the spans of a request and return its root span."""
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
        context = trace.set_span_in_context(span)
        for phase in phases(record):
            self._trace_phase(phase, context, offset_ns)
        span.end(offset_ns + round(record.ended_s * 1e9))
        own = span.get_span_context()
        return TraceContext(
            trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id), is_sampled=True
        )

    def close(self) -> None:
        """Send the remaining spans; may block as long as the SDK waits for a collector."""
        self._provider.shutdown()

    def _trace_phase(self, phase: Phase, context: Context, offset_ns: int) -> None:
        span = self._tracer.start_span(
            phase.name,
            context=context,
            attributes=phase.attributes,
            start_time=offset_ns + round(phase.start_s * 1e9),
        )
        for name, moment_s in phase.events.items():
            span.add_event(name, timestamp=offset_ns + round(moment_s * 1e9))
        for inner in phase.inner:
            self._trace_phase(inner, trace.set_span_in_context(span), offset_ns)
        span.end(offset_ns + round(phase.end_s * 1e9))


def open_tracer(endpoint: str) -> OpenTelemetryTracer:
    """A tracer for the collector at `http://host:port`, or `https://…`."""
    own = Resource.create({"service.name": "weir", "service.version": installed_version("weir")})
    # Environment variables override the server's own resource attributes.
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=own.merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return OpenTelemetryTracer(provider)


def _parent_of(record: RequestRecord) -> Context:
    """The caller's span; empty without one. The current span of this thread is never the parent."""
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
