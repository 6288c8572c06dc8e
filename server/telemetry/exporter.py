"""The exporter: turns the records of ended requests into access log lines and spans.

Thread: `weir-exporter`. Threads that answer requests queue a record and continue; if the queue is
full, the record is dropped, and a dropped log line is counted. The log and OpenTelemetry each write
on a thread of their own, so the exporter waits for neither.
"""

import logging
from typing import Protocol

from weir.server.config import Settings
from weir.server.errors import ConfigError
from weir.server.telemetry.access_log import AccessLog
from weir.server.telemetry.interceptor import Interceptor, SampleRates
from weir.server.telemetry.log import BackgroundQueue
from weir.server.telemetry.request_record import RequestRecord, TraceContext
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

_MAX_WAITING = 4096
_STOP_TIMEOUT_S = 1.0


class Tracer(Protocol):
    """Sends the spans of requests; see `tracing.OpenTelemetryTracer`."""

    def trace(self, record: RequestRecord) -> TraceContext:
        """Create the spans of a request and return its root span."""

    def close(self) -> None:
        """Send the remaining spans."""


def open_tracer(endpoint: str) -> Tracer:
    """A tracer for the collector at an address."""
    try:
        from weir.server.telemetry.tracing import open_tracer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"otlp_endpoint: traces need {error.name}: pip install 'weir[otel]'"
        ) from error
    return open_tracer(endpoint)


def open_exporter(settings: Settings) -> "RequestExporter | None":
    """The exporter that the settings ask for; None without access log and traces.

    Raises:
        ConfigError: traces are configured and the extra `otel` is not installed.
    """
    if settings.otlp_endpoint is not None:
        return RequestExporter(open_tracer(settings.otlp_endpoint))
    return RequestExporter(None) if settings.access_log_sample_rate else None


class RequestExporter:
    """Exports request records in the background."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        self._log = AccessLog()
        self._queue = BackgroundQueue(self._take, name="weir-exporter", limit=_MAX_WAITING)

    @property
    def dropped(self) -> int:
        """Number of log lines that were dropped."""
        return self._queue.dropped

    def interceptor(self, settings: Settings) -> Interceptor:
        """The interceptor whose records this exporter receives."""
        traced = None if self._tracer is None else settings.trace_sample_rate
        return Interceptor(self.export, SampleRates(settings.access_log_sample_rate, traced))

    def export(self, record: RequestRecord) -> None:
        """Queue the record of an ended request. Never blocks."""
        if not self._queue.put(record) and record.is_logged:
            self._queue.drop()

    def stop(self) -> None:
        """Export the waiting records, within two seconds."""
        self._queue.drain(_STOP_TIMEOUT_S)
        if self._tracer is not None:
            # OpenTelemetry retries an unreachable collector for longer than a stop may take.
            closing = SupervisedThread(
                target=self._tracer.close, name="weir-exporter-stop", daemon=True
            )
            closing.start()
            closing.join(_STOP_TIMEOUT_S)

    def _take(self, record: RequestRecord) -> None:
        try:
            span = record.parent
            if record.is_traced and self._tracer is not None:
                span = self._tracer.trace(record)
            if record.is_logged and not self._log.write(record, span):
                self._queue.drop()
        except Exception:  # our bug: the thread must survive it
            logger.exception("request export failed")
            self._queue.drop()
