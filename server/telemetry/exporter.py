"""Requests that have ended, told to the log and to traces.

Thread: `weir-exporter`, which makes lines and spans. Threads that answer hand it a reference and go on; what finds no room is
lost, and a lost line is counted. Neither consumer waits for anything: lines go to the log's own thread, spans to
OpenTelemetry's.
"""

import logging
import threading
from typing import Protocol

from weir.server.config import Settings
from weir.server.errors import ConfigError
from weir.server.telemetry.access_log import AccessLog
from weir.server.telemetry.background_queue import BackgroundQueue
from weir.server.telemetry.interceptor import Interceptor, SampleRates
from weir.server.telemetry.request_record import RequestRecord
from weir.server.telemetry.trace_context import TraceContext

logger = logging.getLogger(__name__)

_MOST_WAITING = 4096
_LAST_WORDS_S = 1.0


class Traces(Protocol):
    """Where spans go; see `traces.Traces`."""

    def trace(self, record: RequestRecord) -> TraceContext:
        """Make the spans of a request; the first of them."""

    def close(self) -> None:
        """Send what is left."""


def open_traces(endpoint: str) -> Traces:
    """Traces sent to the collector at an address.

    Raises:
        ConfigError: the extra that sends them is not installed.
    """
    try:
        from weir.server.telemetry.tracing import open_traces
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"otlp_endpoint: traces need {error.name}: pip install 'weir[otel]'"
        ) from error
    return open_traces(endpoint)


def open_exporter(settings: Settings) -> "RequestExporter | None":
    """Tells of requests as the settings ask for; None if they do not.

    Raises:
        ConfigError: the extra that sends traces is not installed.
    """
    if settings.otlp_endpoint is not None:
        return RequestExporter(open_traces(settings.otlp_endpoint))
    return RequestExporter(None) if settings.access_log_sample_rate else None


class RequestExporter:
    """Tells of requests.

    Args:
        traces: where spans go; None: there are none.
    """

    def __init__(self, traces: Traces | None) -> None:
        self._traces = traces
        self._log = AccessLog()
        self._queue = BackgroundQueue(self._take, name="weir-exporter", limit=_MOST_WAITING)

    @property
    def dropped(self) -> int:
        """Lines that were to be made, and were not."""
        return self._queue.dropped

    def interceptor(self, settings: Settings) -> Interceptor:
        """What lays the records."""
        traced = None if self._traces is None else settings.trace_sample_rate
        return Interceptor(self.export, SampleRates(settings.access_log_sample_rate, traced))

    def export(self, record: RequestRecord) -> None:
        """A request has ended. Never waits."""
        if not self._queue.put(record) and record.is_logged:
            self._queue.drop()

    def stop(self) -> None:
        """Tell what is waiting, as far as a second or two allow."""
        self._queue.drain(_LAST_WORDS_S)
        if self._traces is not None:
            # A collector that is down is tried for longer than a server may take to stop.
            end = threading.Thread(
                target=self._traces.close, name="weir-exporter-stop", daemon=True
            )
            end.start()
            end.join(_LAST_WORDS_S)

    def _take(self, record: RequestRecord) -> None:
        try:
            self._tell(record)
        except Exception:  # our bug: that request is lost, the thread must not be
            logger.exception("request not told of")
            self._queue.drop()

    def _tell(self, record: RequestRecord) -> None:
        span = record.parent
        if record.is_traced and self._traces is not None:
            span = self._traces.trace(record)
        if record.is_logged and not self._log.write(record, span):
            self._queue.drop()
