"""When a batch is cut and which requests form it. Pure: no clock, no lock, no thread.

Rules:
- The oldest request is always in the next batch.
- A request is never split, and its batch-mates have the same key.
- Requests of one key are taken in the order of their arrival; the first that no longer fits ends
  the batch, so that a large request is not overtaken for ever by small ones.
- A batch is cut when a session is free and it is full or its oldest request has waited
  `max_queue_delay_s`. With a delay of zero, load alone makes batches larger: they grow while the
  session is busy.
- After a long run the session lingers for a small share of it, until the callers it answered are back:
  without that, callers who ask again once they are answered split into two halves that take turns.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from server.errors import ConfigError

# To wait for less costs more than it can gain.
_LEAST_LINGER_S = 0.0005


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one model's batches.

    Attributes:
        max_rows: most rows of a batch.
        max_queue_delay_s: how long the oldest request may wait for the batch to fill.
        linger_share: of a run's time, spent after it on waiting for those it answered.
    """

    max_rows: int = 32
    max_queue_delay_s: float = 0.0
    linger_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse limits that would never cut a batch."""
        if self.max_rows < 1:
            raise ConfigError(f"max_batch_rows: expected at least 1, got {self.max_rows}")
        if self.max_queue_delay_s < 0:
            raise ConfigError(
                f"max_queue_delay_s: expected at least 0, got {self.max_queue_delay_s}"
            )


@dataclass(frozen=True, slots=True)
class LastBatch:
    """The batch a session ran before.

    Attributes:
        rows: that were answered.
        run_s: how long it ran.
        ended_s: when its callers had their answers.
        left_rows: that were waiting at that time.
    """

    rows: int
    run_s: float
    ended_s: float
    left_rows: int


class Waiting(Protocol):
    """A request, as far as this module looks at it."""

    rows: int
    key: Hashable


W = TypeVar("W", bound=Waiting)


def delay_s(policy: BatchPolicy, *, waiting_rows: int, oldest_s: float, now: float) -> float:
    """How long to wait before a batch is cut; zero or less means now.

    Args:
        policy: the model's limits.
        waiting_rows: rows in the queue.
        oldest_s: when its oldest request arrived, on the clock of `now`.
        now: the time.
    """
    if waiting_rows >= policy.max_rows:
        return 0.0
    return oldest_s + policy.max_queue_delay_s - now


def linger_s(policy: BatchPolicy, last: LastBatch, *, waiting_rows: int, now: float) -> float:
    """How long to wait for those who were just answered and may ask again; zero or less means no more.

    Args:
        policy: the model's limits.
        last: the batch they were in.
        waiting_rows: rows in the queue.
        now: the time.
    """
    wait_s = policy.linger_share * last.run_s
    if wait_s < _LEAST_LINGER_S or waiting_rows >= min(policy.max_rows, last.left_rows + last.rows):
        return 0.0
    return last.ended_s + wait_s - now


def select(waiting: Iterable[W], max_rows: int) -> list[W]:
    """The requests of the next batch, oldest first."""
    batch: list[W] = []
    rows = 0
    for request in waiting:
        if batch and request.key != batch[0].key:
            continue
        if batch and rows + request.rows > max_rows:
            break
        batch.append(request)
        rows += request.rows
        if rows >= max_rows:
            break
    return batch
