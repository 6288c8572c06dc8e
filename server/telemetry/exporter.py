"""Requests that have ended, told to the log and to traces.

Thread: `weir-tell`, which makes lines and spans. Threads that answer hand it a reference and go on; what finds no room is
lost, and a lost line is counted. Neither consumer waits for anything: lines go to the log's own thread, spans to
OpenTelemetry's.
"""

import logging
import threading
from typing import Protocol

from weir.server.config import Settings
from weir.server.errors import ConfigError
from weir.server.telemetry.access_log import RequestLog
from weir.server.telemetry.background_queue import Outlet
from weir.server.telemetry.interceptor import Follower, Shares
from weir.server.telemetry.request_record import Trail
from weir.server.telemetry.trace_context import TraceContext

logger = logging.getLogger(__name__)

_MOST_WAITING = 4096
_LAST_WORDS_S = 1.0


class Traces(Protocol):
    """Where spans go; see `traces.Traces`."""

    def record(self, trail: Trail) -> TraceContext:
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


def open_teller(settings: Settings) -> "Teller | None":
    """Tells of requests as the settings ask for; None if they do not.

    Raises:
        ConfigError: the extra that sends traces is not installed.
    """
    if settings.otlp_endpoint is not None:
        return Teller(open_traces(settings.otlp_endpoint))
    return Teller(None) if settings.access_log_sample_rate else None


class Teller:
    """Tells of requests.

    Args:
        traces: where spans go; None: there are none.
    """

    def __init__(self, traces: Traces | None) -> None:
        self._traces = traces
        self._log = RequestLog()
        self._outlet = Outlet(self._take, name="weir-tell", limit=_MOST_WAITING)

    @property
    def lost(self) -> int:
        """Lines that were to be made, and were not."""
        return self._outlet.lost

    def follower(self, settings: Settings) -> Follower:
        """What lays the trails."""
        traced = None if self._traces is None else settings.trace_sample_rate
        return Follower(self.tell, Shares(settings.access_log_sample_rate, traced))

    def tell(self, trail: Trail) -> None:
        """A request has ended. Never waits."""
        if not self._outlet.put(trail) and trail.is_logged:
            self._outlet.lose()

    def stop(self) -> None:
        """Tell what is waiting, as far as a second or two allow."""
        self._outlet.drain(_LAST_WORDS_S)
        if self._traces is not None:
            # A collector that is down is tried for longer than a server may take to stop.
            end = threading.Thread(target=self._traces.close, name="weir-tell-end", daemon=True)
            end.start()
            end.join(_LAST_WORDS_S)

    def _take(self, trail: Trail) -> None:
        try:
            self._tell(trail)
        except Exception:  # our bug: that request is lost, the thread must not be
            logger.exception("request not told of")
            self._outlet.lose()

    def _tell(self, trail: Trail) -> None:
        span = trail.parent
        if trail.is_traced and self._traces is not None:
            span = self._traces.record(trail)
        if trail.is_logged and not self._log.write(trail, span):
            self._outlet.lose()
