import logging
import sys

import pytest

from tests.unit.server.records import PARENT, ended
from weir.server.config import Settings
from weir.server.errors import ConfigError
from weir.server.telemetry import exporter
from weir.server.telemetry.exporter import RequestExporter
from weir.server.telemetry.log import REQUESTS
from weir.server.telemetry.request_record import RequestRecord, TraceContext

SPAN = TraceContext("0" * 31 + "1", "0" * 15 + "2", is_sampled=True)


class FakeTracer:
    def __init__(self) -> None:
        self.recorded: list[RequestRecord] = []
        self.is_closed = False

    def trace(self, record: RequestRecord) -> TraceContext:
        if record.model == "broken":
            raise ValueError("planned")
        self.recorded.append(record)
        return SPAN

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, REQUESTS)
    return caplog


def spans_of(lines: pytest.LogCaptureFixture) -> list[tuple[str | None, str | None]]:
    fields = [record.__dict__["fields"] for record in lines.records if record.name == REQUESTS]
    return [(each.get("trace_id"), each.get("span_id")) for each in fields]


def test_line_names_the_requests_span(
    lines: pytest.LogCaptureFixture,
) -> None:
    tracer = FakeTracer()
    request_exporter = RequestExporter(tracer)
    both, logged, traced = ended(), ended(is_traced=False), ended(is_logged=False)

    for record in (both, logged, traced):
        request_exporter.export(record)
    request_exporter.stop()

    assert tracer.recorded == [both, traced]
    assert spans_of(lines) == [(SPAN.trace_id, SPAN.span_id), (PARENT.trace_id, PARENT.span_id)]
    assert tracer.is_closed
    assert request_exporter.dropped == 0


def test_lines_over_the_limit_are_counted(lines: pytest.LogCaptureFixture) -> None:
    request_exporter = RequestExporter(None)

    for _ in range(1200):
        request_exporter.export(ended())
    request_exporter.stop()

    assert len(spans_of(lines)) == 1000
    assert request_exporter.dropped == 200


def test_request_that_cannot_be_exported_harms_no_other(lines: pytest.LogCaptureFixture) -> None:
    request_exporter = RequestExporter(FakeTracer())

    request_exporter.export(ended(model="broken"))
    request_exporter.export(ended())
    request_exporter.stop()

    assert len(spans_of(lines)) == 1
    assert request_exporter.dropped == 1
    assert "request export failed" in lines.text


def test_no_exporter_without_access_log_and_traces() -> None:
    assert exporter.open_exporter(Settings.model_validate({"models_dir": "."})) is None


def test_traces_without_the_extra_are_a_config_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "weir.server.telemetry.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(ConfigError, match=r"otlp_endpoint: .*pip install 'weir\[otel\]'"):
        exporter.open_tracer("http://localhost:4317")
