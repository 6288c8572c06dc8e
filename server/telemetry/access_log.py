"""The access log: one line for each recorded request, without the request's data."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import grpc

from weir.server.telemetry.log import REQUESTS
from weir.server.telemetry.request_record import RequestRecord, TraceContext

logger = logging.getLogger(REQUESTS)

_MAX_LINES_PER_S = 1000


class AccessLog:
    """Writes the lines; used by one thread.

    Successful and failed requests have separate limits, so that neither crowds out the other.
    """

    def __init__(self) -> None:
        self._succeeded, self._failed = RateLimit(_MAX_LINES_PER_S), RateLimit(_MAX_LINES_PER_S)

    def write(self, record: RequestRecord, span: TraceContext | None) -> bool:
        """Write a line; False if the limit of this second is reached.

        Args:
            span: the request's span; without traces, the caller's span.
        """
        limit = self._succeeded if record.code is grpc.StatusCode.OK else self._failed
        if not limit.allows(record.ended_s):
            return False
        logger.info("request", extra={"fields": fields_of(record, span)})
        return True


@dataclass(slots=True)
class RateLimit:
    """A limit of events in each second of a clock."""

    limit: int
    second: int = 0
    used: int = 0

    def allows(self, now: float) -> bool:
        """Count an event; False if the limit of this second is reached."""
        second = math.floor(now)
        if second != self.second:
            self.second, self.used = second, 0
        self.used += 1
        return self.used <= self.limit


def fields_of(record: RequestRecord, span: TraceContext | None) -> dict[str, Any]:
    """The fields of a line in order, without unknown ones."""
    batch, end_s = record.batch, record.ended_s
    cut_s = batch.cut_s if batch else end_s
    fields = {
        "method": record.method,
        "model": record.model,
        "version": record.version,
        "status": record.code.name,
        "id": record.request_id,
        "rows": record.rows,
        "length": record.length,
        "total_s": _seconds(record.began_s, end_s),
        "queue_s": _seconds(record.queued_s, cut_s),
        "compute_s": _seconds(batch.run_s, batch.ran_s) if batch else None,
        "batch_rows": batch.rows if batch else None,
        "first_token_s": _seconds(record.began_s, record.first_token_s),
        "steps": record.steps,
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "peer": record.peer,
        "token": record.token,
        "trace_id": span.trace_id if span else None,
        "span_id": span.span_id if span else None,
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _seconds(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else round(end_s - start_s, 6)
