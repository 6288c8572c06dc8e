"""Batching policy: when a batch is cut and which requests form it. Pure: no clock, lock or thread.

Rules:
- The first of the waiting requests is always in the next batch. It is the oldest, unless others
  have less time (`deadline_order`).
- A request is never split, and its batch-mates have the same key. One without a key runs alone.
- Requests of one key are taken in the order of their arrival. The first that does not fit ends the
  batch, so that small requests do not overtake a large one for ever.
- Where requests have lengths, all rows of a batch are computed as long as its longest. The
  batch-mates are then those nearest in length, shorter and longer, as many as make a real entry
  cheapest; of equal length the older goes first. As each batch takes the oldest request, a request
  waits for no more batches than there were requests before it.
- A batch is cut when a session is free and the batch is full, or its oldest request has waited
  `max_queue_delay_s`. With a delay of zero, load alone makes batches larger: they grow while the
  session is busy.
- After a long run the session waits for a small share of it, until the callers it answered are
  back. Without that wait, callers in a closed loop split into two halves that take turns.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from operator import attrgetter
from typing import Protocol, TypeVar

from weir.bundle.contract import Batching, Contract
from weir.server.config import ModelSettings
from weir.server.errors import ConfigError
from weir.server.runtime.collate import rounded_up

_REGROUP_SHARE = 0.02
# A shorter wait costs more than it can gain.
_MIN_REGROUP_WAIT_S = 0.0005
# Measured on a tagger of 256 units: from 1 to 2 the throughput is the same, below and above it is
# less. A GPU computes several rows in the time of one, so full batches come first there; 64 is a
# guess.
_STEP_ROWS = {"cpu": 1.0, "cuda": 64.0}
# Requests that are compared for a batch: with a queue of ten thousand, a cut by length would hold
# the queue's lock for 10 ms.
_MAX_COMPARED = 1024


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one model's batches.

    Attributes:
        max_queue_delay_s: how long the oldest request may wait for the batch to fill.
        regroup_share: share of a run's time to wait after it for the callers it answered.
        max_tokens: most entries of a batch, padding included; None without a limit. A request that
            has more runs alone.
        step_rows: fixed cost of computing one more entry of every row, counted in rows.
    """

    max_rows: int = 32
    max_queue_delay_s: float = 0.0
    regroup_share: float = 0.0
    max_tokens: int | None = None
    step_rows: float = 0.0

    def __post_init__(self) -> None:
        """Refuse limits under which no batch is ever cut."""
        if self.max_rows < 1:
            raise ConfigError(f"max_batch_rows: expected at least 1, got {self.max_rows}")
        if self.max_queue_delay_s < 0:
            raise ConfigError(
                f"max_queue_delay_s: expected at least 0, got {self.max_queue_delay_s}"
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_batch_tokens: expected at least 1, got {self.max_tokens}")

    def is_full(self, rows: int, tokens: int) -> bool:
        """Whether rows with so many entries in all leave no room for more."""
        return rows >= self.max_rows or (self.max_tokens is not None and tokens >= self.max_tokens)

    def fits(self, rows: int, size: int) -> bool:
        """Whether so many rows, each padded to `size` entries, may be a batch."""
        return rows <= self.max_rows and (self.max_tokens is None or rows * size <= self.max_tokens)


def max_rows(settings: ModelSettings, contract: Contract | None) -> int:
    """The most rows of a batch, and of a request: the operator's setting, else the bundle's."""
    return settings.max_batch_rows or _batching(contract).max_rows


def policy_of(
    settings: ModelSettings, contract: Contract | None, *, rows: int, provider: str
) -> BatchPolicy:
    """The batching policy of a model, for batches of at most `rows` rows."""
    own = _batching(contract)
    delay_s = settings.max_queue_delay_s
    return BatchPolicy(
        rows,
        own.max_queue_delay_s if delay_s is None else delay_s,
        regroup_share=_REGROUP_SHARE,
        max_tokens=settings.max_batch_tokens or own.max_tokens,
        step_rows=_STEP_ROWS[provider],
    )


def _batching(contract: Contract | None) -> Batching:
    return contract.batching if contract else Batching()


class Basis(Enum):
    """What decided whether requests of a model share batches; the metric's label."""

    CONTRACT = "contract"
    SETTING = "setting"
    PROOF = "proof"
    NO_AXIS = "no_axis"
    FORM = "form"
    RUN = "run"
    ROW_COUNT = "row_count"


@dataclass(frozen=True, slots=True)
class BatchDecision:
    """Whether requests of a model share batches, what decided it, and why."""

    is_batched: bool
    basis: Basis
    reason: str


BATCHED_BY_CONTRACT = BatchDecision(
    is_batched=True, basis=Basis.CONTRACT, reason="the contract names the batch axis"
)


@dataclass(frozen=True, slots=True)
class LastBatch:
    """The previous batch of a session.

    Attributes:
        rows: answered rows.
        ended_s: when its answers were sent.
        left_rows: rows that waited at the end of the run.
    """

    rows: int
    run_s: float
    ended_s: float
    left_rows: int


class Waiting(Protocol):
    """The part of a request that batching reads; without lengths, `length` is 0.

    `key` is None if the request runs alone.
    """

    rows: int
    key: Hashable
    length: int


W = TypeVar("W", bound=Waiting)


def delay_s(
    policy: BatchPolicy, *, waiting_rows: int, waiting_tokens: int, oldest_s: float, now: float
) -> float:
    """How long to wait before a batch is cut; zero or less means now.

    Args:
        waiting_tokens: entries of all these rows.
        oldest_s: when its oldest request was queued, on the clock of `now`.
    """
    if policy.is_full(waiting_rows, waiting_tokens):
        return 0.0
    return oldest_s + policy.max_queue_delay_s - now


def regroup_wait_s(
    policy: BatchPolicy, last: LastBatch, *, waiting_rows: int, waiting_tokens: int, now: float
) -> float:
    """How long to wait for the callers just answered to send again; 0 or less means not at all."""
    wait_s = policy.regroup_share * last.run_s
    are_back = waiting_rows >= last.left_rows + last.rows
    if wait_s < _MIN_REGROUP_WAIT_S or are_back or policy.is_full(waiting_rows, waiting_tokens):
        return 0.0
    return last.ended_s + wait_s - now


def select(waiting: Iterable[W], policy: BatchPolicy) -> list[W]:
    """The requests of the next batch, its first the first of those that wait."""
    rest = islice(waiting, _MAX_COMPARED)
    first = next(rest, None)
    if first is None or first.key is None:
        return [] if first is None else [first]
    if first.length:
        return _select_by_length(first, rest, policy)
    batch = [first]
    rows = first.rows
    if rows >= policy.max_rows:
        return batch
    for request in rest:
        if request.key is None or request.key != first.key:
            continue
        if rows + request.rows > policy.max_rows:
            break
        batch.append(request)
        rows += request.rows
        if rows >= policy.max_rows:
            break
    return batch


def _select_by_length(oldest: W, others: Iterable[W], policy: BatchPolicy) -> list[W]:
    """The oldest request with those nearest in length, such that a real entry costs least.

    The more longer requests a batch takes, the fewer shorter ones are worth their padding. Both of
    its ends therefore move in one direction only, and each request is compared once or twice.
    """
    length = attrgetter("length")
    mates = [each for each in others if each.key == oldest.key]
    longer = sorted([each for each in mates if each.length >= oldest.length], key=length)
    shorter = [each for each in mates if each.length < oldest.length]
    shorter.sort(key=length, reverse=True)
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


class _Candidate:
    """A candidate batch: its rows, their entries, and the size they are padded to."""

    __slots__ = ("_entries", "_policy", "_rows", "_size")

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._rows = self._entries = self._size = 0

    def add(self, request: Waiting) -> None:
        """Add a request, of any length."""
        self._rows += request.rows
        self._entries += request.rows * request.length
        self._size = max(self._size, rounded_up(request.length))

    def remove(self, request: Waiting) -> None:
        """Remove a request that is not the longest."""
        self._rows -= request.rows
        self._entries -= request.rows * request.length

    def fits(self) -> bool:
        """Whether it is within the policy's limits."""
        return self._policy.fits(self._rows, self._size)

    def worth(self) -> float:
        """Real entries per cost; the batch costs as many steps as its size, each of all rows."""
        return self._entries / (self._size * (self._rows + self._policy.step_rows))

    def gains_by(self, shorter: Waiting) -> bool:
        """Whether a request in the batch that is not the longest raises its worth."""
        return shorter.length * (self._rows + self._policy.step_rows) >= self._entries
