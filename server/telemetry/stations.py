"""The stations of a request that has ended, each with its begin and end: what becomes spans."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from weir.server.telemetry.request_record import BatchRecord, RequestRecord


@dataclass(frozen=True, slots=True)
class Station:
    """A part of a request's time.

    Attributes:
        name: what happened.
        start_s: on the record's clock.
        end_s: likewise.
        attributes: that belong to it.
        events: moments in it, by name.
        inner: its own parts.
    """

    name: str
    start_s: float
    end_s: float
    attributes: dict[str, str | int] = field(default_factory=dict)
    events: dict[str, float] = field(default_factory=dict)
    inner: tuple["Station", ...] = ()


def stations(record: RequestRecord) -> Iterator[Station]:
    """In order; a request that was refused or given up has only those it reached."""
    end_s = record.ended_s
    if record.queued_s is None:
        return
    if record.queued_s > record.arrived_s:  # a picture or a text
        yield Station("prepare", record.began_s, record.queued_s)
    batch = record.batch
    yield Station("queue", record.queued_s, end_s if batch is None else min(batch.cut_s, end_s))
    if batch is not None and batch.cut_s <= end_s:
        attributes: dict[str, str | int] = {"weir.batch": batch.key, "weir.batch_rows": batch.rows}
        yield Station("batch", batch.cut_s, end_s, attributes, inner=tuple(_inner(record, batch)))


def _inner(record: RequestRecord, batch: BatchRecord) -> Iterator[Station]:
    """The graph's run and, of an encoder-decoder, the steps after it."""
    end_s = record.ended_s
    if batch.run_s is None:
        return
    # A caller that is given up is told so while its batch runs on.
    ran_s = end_s if batch.ran_s is None else min(batch.ran_s, end_s)
    yield Station("compute", min(batch.run_s, end_s), ran_s)
    if record.first_token_s is not None:
        attributes: dict[str, str | int] = {}
        if record.steps is not None:
            attributes["weir.steps"] = record.steps
        events = {"first token": min(record.first_token_s, end_s)}
        yield Station("decode", ran_s, end_s, attributes, events)
