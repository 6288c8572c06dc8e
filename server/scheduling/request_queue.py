"""Request queue of a model: its waiting and its running requests, and what it refuses.

Rules:
- A request is refused when it arrives if it cannot be answered by its deadline: after the run under
  way, the requests that go before it, and its own run, all by the measured `ServiceTime`. It then
  costs no computation, and its caller can go elsewhere at once.
- A request that arrives at a free session is never refused: the estimate may be wrong, and only
  runs correct it.
- What cannot end in time is left out when a batch is cut, so that nothing is computed in vain. If
  that would leave nothing to run, one request runs.
- `max_rows` bounds the memory that waiting requests hold.
"""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from weir.server.errors import DeadlineExceeded, Draining, Overloaded
from weir.server.runtime.collate import rounded_up
from weir.server.scheduling import batching
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.deadline_order import FAIR_CUTS, DeadlineOrder, Timed
from weir.server.scheduling.request import Load, Request
from weir.server.scheduling.service_time import USABLE_SHARE, Ahead, ServiceTime, answer_s, most_s

T = TypeVar("T")

# Of the row whose answer `load` predicts: behind almost all others.
_TIME_LIMIT_S = 60.0


@dataclass(slots=True)
class Batch(Generic[T]):
    """A batch as it was cut. Immutable, but not frozen: a frozen one takes a microsecond to make.

    Attributes:
        work: of its run, padding included.
        ends_s: when it is expected to be answered.
        is_full: whether it left others waiting.
        refused: requests that left the queue, and why.
    """

    requests: list[Request[T]]
    work: int
    cut_s: float
    ends_s: float
    is_full: bool
    refused: list[tuple[Request[T], DeadlineExceeded | Overloaded]]


@dataclass(slots=True)
class _Row:
    """A request of one row that is not made yet."""

    queued_s: float
    deadline_s: float
    rows: int = 1
    work: int = 1


@dataclass(slots=True)
class RequestQueue(Generic[T]):
    """The waiting and the running requests of a model; of either kind of model.

    `leaving`, `close` and `load` take the lock of `condition`; every other method is called under
    it.

    Attributes:
        sessions: that run batches at the same time.
        batches: that run now, each by its thread.
        answering: requests that have run, but are not yet answered and counted.
    """

    name: str
    max_rows: int
    service: ServiceTime = field(default_factory=lambda: ServiceTime(1.0))
    sessions: int = 1
    waiting: DeadlineOrder[Request[T]] = field(default_factory=DeadlineOrder)
    running: set[Request[T]] = field(default_factory=set)
    batches: dict[int, Batch[T]] = field(default_factory=dict)
    answering: int = 0
    cuts: int = 0
    is_closed: bool = False
    condition: threading.Condition = field(
        default_factory=lambda: threading.Condition(threading.Lock())
    )

    def put(self, request: Request[T], now: float | None = None) -> None:
        """Add a request to those that wait.

        Args:
            now: None if the queue's runs are not measured.

        Raises:
            Draining: the queue is closed.
            Overloaded: it does not fit, or cannot be answered by its deadline.
        """
        if self.is_closed:
            raise Draining(f"model {self.name!r} is being unloaded")
        waiting = self.waiting
        rows = waiting.rows
        # An empty queue takes a request of any size, which would otherwise never be taken.
        if rows and rows + request.rows > self.max_rows:
            raise Overloaded(
                f"model {self.name!r}: {rows} rows wait, the limit is {self.max_rows}",
                self.service.of(self.service.full_rows) or None,
            )
        if now is not None and (rows or len(self.batches) == self.sessions):
            self._check_time(request, now)
        waiting.add(request)

    def check_time(self, deadline_s: float, now: float) -> None:
        """Refuse a request of one row before it is preprocessed; see `put`.

        Raises:
            Overloaded: it could not be answered by its deadline.
        """
        # The queue of an unloaded model refuses in its own way.
        if self.is_closed:
            return
        if self.waiting.rows or len(self.batches) == self.sessions:
            self._check_time(_Row(now, deadline_s), now)

    def cut(self, policy: BatchPolicy, now: float, thread: int) -> Batch[T]:
        """Move the next batch to the running requests; empty if none is left that can be run."""
        self.cuts += 1
        refused: list[tuple[Request[T], DeadlineExceeded | Overloaded]] = []
        while True:
            is_fair = not self.cuts % FAIR_CUTS
            waiting = self.waiting.by_arrival() if is_fair else iter(self.waiting)
            requests = batching.select(waiting, policy)
            work = _batch_work(requests)
            ends_s = now + self.service.of(work)
            late = [request for request in requests if request.deadline_s < ends_s]
            if not late:
                break
            self.waiting.remove_all(late)
            refused += [(request, self._late_error(request, now)) for request in late]
        self.waiting.remove_all(requests)
        if not requests and refused:
            last = max(refused, key=lambda pair: pair[0].deadline_s)
            if last[0].deadline_s > now:
                refused.remove(last)
                requests, work = [last[0]], _batch_work([last[0]])
                ends_s = now + self.service.of(work)
        self.running.update(requests)
        batch = Batch(requests, work, now, ends_s, bool(self.waiting.rows), refused)
        if requests:
            self.batches[thread] = batch
        return batch

    def ended(self, thread: int, answered_s: float | None) -> None:
        """Forget the batch of a thread; None if its run failed and measures nothing."""
        batch = self.batches.pop(thread, None)
        if batch is not None and answered_s is not None:
            self.service = self.service.measured(
                batch.work,
                answered_s - batch.cut_s,
                rows=sum([request.rows for request in batch.requests]),
                is_full=batch.is_full,
            )

    def take(self, request: Request[T]) -> bool:
        """Remove a request from its place; False if it is gone already."""
        if request in self.running:
            self.running.remove(request)
            return True
        return self.waiting.remove(request)

    def late(self, now: float) -> tuple[list[Request[T]], float]:
        """The requests that are late, and the earliest deadline of the others, or infinity."""
        earliest = float("inf")
        late = []
        for request in (*self.waiting.unordered(), *self.running):
            if request.deadline_s <= now:
                late.append(request)
            else:
                earliest = min(earliest, request.deadline_s)
        return late, earliest

    def close(self) -> None:
        """Refuse new requests, and wake the threads."""
        with self.condition:
            self.is_closed = True
            self.condition.notify_all()

    def load(self, now: float) -> Load:
        """How much it holds, and how long an answer takes."""
        with self.condition:
            expected_s = None
            if self.service.runs:
                expected_s = self._answer_s(_Row(now, now + _TIME_LIMIT_S), now)
            return self.load_with(expected_s)

    def load_with(self, expected_s: float | None) -> Load:
        """How much it holds; the caller says how long an answer takes."""
        running = len(self.running) + self.answering
        return Load(len(self.waiting), self.waiting.rows, running, expected_s)

    @contextmanager
    def leaving(self, requests: Iterable[Request[T]]) -> Iterator[set[Request[T]]]:
        """Take requests out of their places; yields those taken, to be answered and counted."""
        with self.condition:
            taken = {request for request in requests if self.take(request)}
            self.answering += len(taken)
        try:
            yield taken
        finally:
            with self.condition:
                self.answering -= len(taken)

    def _check_time(self, request: Timed, now: float) -> None:
        left_s = request.deadline_s - now
        usable_s = USABLE_SHARE * left_s
        waiting = self.waiting
        if usable_s >= most_s(self.service, waiting.rows, waiting.work + request.work):
            return
        # Of a request that is late already, the cut says so.
        if left_s <= 0:
            return
        answered_s = self._answer_s(request, now)
        if answered_s > usable_s:
            raise Overloaded(
                f"model {self.name!r}: {waiting.rows} rows wait, an answer is expected in "
                f"{answered_s:.3g} s, the request has {left_s:.3g} s",
                answered_s - usable_s,
            )

    def _answer_s(self, request: Timed, now: float) -> float:
        """Seconds until the answer of a request that is queued now."""
        rows, work = self.waiting.ahead(request)
        running_s = 0.0
        if len(self.batches) == self.sessions:
            running_s = max(0.0, min([batch.ends_s for batch in self.batches.values()]) - now)
        ahead = Ahead(rows, work, self.sessions, running_s)
        return answer_s(self.service, ahead, rows=request.rows, work=request.work)

    def _late_error(self, request: Request[T], now: float) -> DeadlineExceeded | Overloaded:
        if request.deadline_s <= now:
            return DeadlineExceeded("the deadline passed in the queue")
        return Overloaded(
            f"model {self.name!r}: the next run ends after the request's deadline, in "
            f"{request.deadline_s - now:.3g} s",
            self._answer_s(request, now),
        )


def _batch_work(requests: Collection[Request[T]]) -> int:
    """The work of a batch: its rows, each as long as the longest where they have lengths."""
    rows = sum([request.rows for request in requests])
    length = max([request.length for request in requests], default=0)
    return rows * rounded_up(length) if length else rows
