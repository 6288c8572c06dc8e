"""A batch that has run, for tests of what is counted of it."""

from dataclasses import dataclass

from weir.server.runtime.collate import Tokens
from weir.server.telemetry.model_stats import BatchTimes, ModelStats


@dataclass
class CountedRequest:
    """The numbers of a request, as `ModelStats` reads them."""

    rows: int
    arrived_s: float
    queued_s: float
    is_answered: bool
    request_bytes: int
    response_bytes: int


def batch_ran(
    stats: ModelStats,
    *,
    rows: int,
    answered: int,
    total_s: float,
    queue_s: float,
    input_s: float,
    infer_s: float,
    output_s: float,
    tokens: tuple[int, int] = (0, 0),
    request_bytes: int = 0,
    response_bytes: int = 0,
) -> None:
    """Count a batch: `answered` requests of one kind, and one with all rows that was given up."""
    times = BatchTimes(0.0, input_s, input_s + infer_s, input_s + infer_s + output_s)
    request = CountedRequest(
        rows=0,
        arrived_s=times.answered_s - total_s,
        queued_s=-queue_s,
        is_answered=True,
        request_bytes=request_bytes,
        response_bytes=response_bytes,
    )
    given_up = CountedRequest(rows, 0.0, 0.0, is_answered=False, request_bytes=1, response_bytes=1)
    stats.batch_ran([request] * answered + [given_up], times, Tokens(*tokens))
