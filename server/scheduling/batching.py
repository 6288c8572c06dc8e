"""When a batch is cut and which requests form it. Pure: no clock, no lock, no thread.

Rules:
- The oldest request is always in the next batch.
- A request is never split, and its batch-mates have the same key.
- Requests of one key are taken in the order of their arrival; the first that no longer fits ends
  the batch, so that a large request is not overtaken for ever by small ones.
- Where requests differ in length, all rows of a batch are computed as long as its longest. There the
  batch-mates are those nearest in length, shorter and longer, as many as make a real entry cheapest;
  of equal length the older goes first. Nobody starves: each batch takes the oldest, so a request waits
  for no more batches than there were requests before it.
- A batch is cut when a session is free and it is full or its oldest request has waited
  `max_queue_delay_s`. With a delay of zero, load alone makes batches larger: they grow while the
  session is busy.
- After a long run the session lingers for a small share of it, until the callers it answered are back:
  without that, callers who ask again once they are answered split into two halves that take turns.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from weir.server.errors import ConfigError
from weir.server.runtime.padding import rounded_up

# To wait for less costs more than it can gain.
_LEAST_LINGER_S = 0.0005


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one model's batches.

    Attributes:
        max_rows: most rows of a batch.
        max_queue_delay_s: how long the oldest request may wait for the batch to fill.
        linger_share: of a run's time, spent after it on waiting for those it answered.
        max_tokens: most entries of a batch with what fills its rows up, None without a limit; a
            request that has more runs alone.
        step_rows: what computing one more entry of every row costs besides the rows, counted in rows.
    """

    max_rows: int = 32
    max_queue_delay_s: float = 0.0
    linger_share: float = 0.0
    max_tokens: int | None = None
    step_rows: float = 0.0

    def __post_init__(self) -> None:
        """Refuse limits that would never cut a batch."""
        if self.max_rows < 1:
            raise ConfigError(f"max_batch_rows: expected at least 1, got {self.max_rows}")
        if self.max_queue_delay_s < 0:
            raise ConfigError(
                f"max_queue_delay_s: expected at least 0, got {self.max_queue_delay_s}"
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_batch_tokens: expected at least 1, got {self.max_tokens}")

    def is_full(self, rows: int, tokens: int) -> bool:
        """Whether so many rows of so many entries in all leave no room for more."""
        return rows >= self.max_rows or (self.max_tokens is not None and tokens >= self.max_tokens)

    def fits(self, rows: int, size: int) -> bool:
        """Whether so many rows, each filled up to so many entries, may be a batch."""
        return rows <= self.max_rows and (self.max_tokens is None or rows * size <= self.max_tokens)


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
    """A request, as far as this module looks at it; one without a length has length 0."""

    rows: int
    key: Hashable
    length: int


W = TypeVar("W", bound=Waiting)


def delay_s(
    policy: BatchPolicy, *, waiting_rows: int, waiting_tokens: int, oldest_s: float, now: float
) -> float:
    """How long to wait before a batch is cut; zero or less means now.

    Args:
        policy: the model's limits.
        waiting_rows: rows in the queue.
        waiting_tokens: entries of all these rows.
        oldest_s: when its oldest request arrived, on the clock of `now`.
        now: the time.
    """
    if policy.is_full(waiting_rows, waiting_tokens):
        return 0.0
    return oldest_s + policy.max_queue_delay_s - now


def regroup_wait_s(
    policy: BatchPolicy, last: LastBatch, *, waiting_rows: int, waiting_tokens: int, now: float
) -> float:
    """How long to wait for those who were just answered and may ask again; zero or less means no more.

    Args:
        policy: the model's limits.
        last: the batch they were in.
        waiting_rows: rows in the queue.
        waiting_tokens: entries of all these rows.
        now: the time.
    """
    wait_s = policy.linger_share * last.run_s
    are_back = waiting_rows >= last.left_rows + last.rows
    if wait_s < _LEAST_LINGER_S or are_back or policy.is_full(waiting_rows, waiting_tokens):
        return 0.0
    return last.ended_s + wait_s - now


def select(waiting: Collection[W], policy: BatchPolicy) -> list[W]:
    """The requests of the next batch, its first the oldest."""
    oldest = next(iter(waiting), None)
    if oldest is not None and oldest.length:
        return _select_by_length(oldest, waiting, policy)
    batch: list[W] = []
    rows = 0
    for request in waiting:
        if batch and request.key != batch[0].key:
            continue
        if batch and rows + request.rows > policy.max_rows:
            break
        batch.append(request)
        rows += request.rows
        if rows >= policy.max_rows:
            break
    return batch


def _select_by_length(oldest: W, waiting: Collection[W], policy: BatchPolicy) -> list[W]:
    """The oldest with those next to it in length, such that a real entry costs least.

    The more longer requests a batch takes, the fewer shorter ones are worth their padding: so both of
    its ends move in one direction only, and each request is looked at once or twice.
    """
    mates = [each for each in waiting if each.key == oldest.key and each is not oldest]
    longer = sorted([each for each in mates if each.length >= oldest.length], key=_length)
    shorter = [each for each in mates if each.length < oldest.length]
    shorter.sort(key=_length, reverse=True)
    batch = _Candidate(policy)
    batch.add(oldest)
    taken = 0
    for mate in shorter[: policy.max_rows]:
        batch.add(mate)
        if not (batch.fits() and batch.gains_by(mate)):
            batch.remove(mate)
            break
        taken += 1
    best = batch.worth(), 0, taken
    for count, mate in enumerate(longer[: policy.max_rows], 1):
        batch.add(mate)
        while taken and not (batch.fits() and batch.gains_by(shorter[taken - 1])):
            taken -= 1
            batch.remove(shorter[taken])
        if not batch.fits():
            break
        best = max(best, (batch.worth(), count, taken))
    return [oldest, *longer[: best[1]], *shorter[: best[2]]]


def _length(request: Waiting) -> int:
    return request.length


class _Candidate:
    """A batch that may be cut: its rows, their entries, and the size they are filled up to."""

    __slots__ = ("_entries", "_policy", "_rows", "_size")

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._rows = self._entries = self._size = 0

    def add(self, request: Waiting) -> None:
        """Take another request, of any length."""
        self._rows += request.rows
        self._entries += request.rows * request.length
        self._size = max(self._size, rounded_up(request.length))

    def remove(self, request: Waiting) -> None:
        """Take back one that is not the longest."""
        self._rows -= request.rows
        self._entries -= request.rows * request.length

    def fits(self) -> bool:
        """Whether it is within the policy's limits."""
        return self._policy.fits(self._rows, self._size)

    def worth(self) -> float:
        """Real entries for what the batch costs: as many steps as its size, each of all rows."""
        return self._entries / (self._size * (self._rows + self._policy.step_rows))

    def gains_by(self, shorter: Waiting) -> bool:
        """Whether a request that is in it, and not the longest, makes it worth more."""
        return shorter.length * (self._rows + self._policy.step_rows) >= self._entries
