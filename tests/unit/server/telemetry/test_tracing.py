import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.unit.server.records import BEGAN_NS, PARENT, ended
from weir.server.telemetry.request_record import RequestRecord
from weir.server.telemetry.tracing import OpenTelemetryTracer

MS = 1_000_000


def spans_of(record: RequestRecord) -> list[ReadableSpan]:
    """The spans in the order in which they ended; the last is the whole request."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    own = OpenTelemetryTracer(provider).trace(record)
    spans = list(exporter.get_finished_spans())
    assert spans[-1].context is not None
    assert spans[-1].context.span_id == int(own.span_id, 16)
    return spans


def test_spans_have_the_times_of_the_wall_clock() -> None:
    times = {
        span.name: ((span.start_time or 0) - BEGAN_NS, (span.end_time or 0) - BEGAN_NS)
        for span in spans_of(ended())
    }

    assert times == {
        "inference.GRPCInferenceService/ModelInfer": (0, 35 * MS),
        "queue": (0, 10 * MS),
        "batch": (10 * MS, 35 * MS),
        "compute": (11 * MS, 31 * MS),
    }


def test_a_request_belongs_to_its_callers_trace() -> None:
    whole = spans_of(ended())[-1]

    assert whole.context is not None and whole.parent is not None
    assert whole.context.trace_id == int(PARENT.trace_id, 16)
    assert whole.parent.span_id == int(PARENT.span_id, 16)
    assert whole.parent.is_remote


def test_request_without_traceparent_starts_a_trace() -> None:
    assert spans_of(ended(parent=None))[-1].parent is None


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.OK, StatusCode.UNSET),
        (grpc.StatusCode.INVALID_ARGUMENT, StatusCode.UNSET),
        (grpc.StatusCode.CANCELLED, StatusCode.UNSET),
        (grpc.StatusCode.INTERNAL, StatusCode.ERROR),
        (grpc.StatusCode.UNAVAILABLE, StatusCode.ERROR),
        (grpc.StatusCode.DEADLINE_EXCEEDED, StatusCode.ERROR),
    ],
    ids=lambda value: value.name,
)
def test_only_server_faults_are_errors(code: grpc.StatusCode, status: StatusCode) -> None:
    assert spans_of(ended(code=code))[-1].status.status_code is status
