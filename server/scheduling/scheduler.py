"""One per model: a bounded queue in front, session threads behind.

Threads: `weir-run-<model>-<n>`, one per instance, each of which cuts a batch, and runs and answers it
(`running`).
The transport's threads add and cancel, `weir-deadlines` expires. They meet in the queue, under one
lock that is held to move references and never while something runs.

A request is in exactly one place: waiting, running, or gone. Whoever takes it out of that place is
the one who answers it, so it is answered once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from weir.server.errors import DeadlineExceeded
from weir.server.runtime.padding import Padding
from weir.server.scheduling import batching
from weir.server.scheduling.batching import BatchPolicy, LastBatch
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.places import Places
from weir.server.scheduling.request import InferRequest, Load, refuse
from weir.server.scheduling.running import Observer, Run, Runner
from weir.server.transport.status import closed_error

logger = logging.getLogger(__name__)


class Scheduler:
    """Queue and threads of one model version.

    Args:
        name: of the model, for thread names and messages.
        run: computes every output of a batch; called from several threads.
        policy: when a batch is cut.
        max_queue_rows: rows that may wait; more are refused at once.
        instances: threads that run batches side by side.
        has_rows: whether the first axis of every tensor is that of the rows.
        has_fixed_rows: whether an answer must have as many rows as its request (`running`).
        is_batched: whether requests may be put together; never again once a run shows that they may not.
        paddings: the axes along which joined requests are filled up.
        deadlines: watches the requests while they are here.
        observer: counts each batch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        policy: BatchPolicy,
        max_queue_rows: int,
        instances: int,
        has_rows: bool,
        deadlines: Deadlines,
        observer: Observer,
        has_fixed_rows: bool = True,
        is_batched: bool = True,
        paddings: Sequence[Padding] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._batched = policy
        self._alone = replace(policy, max_rows=1, max_queue_delay_s=0.0, linger_share=0.0)
        self._max_queue_rows = max_queue_rows
        self._deadlines = deadlines
        self._clock = clock
        self._condition = threading.Condition(threading.Lock())
        self._places: Places[InferRequest] = Places()
        self._runner = Runner(
            name,
            run,
            has_rows=has_rows,
            has_fixed_rows=has_fixed_rows,
            is_batched=is_batched,
            paddings=paddings,
            places=self._places,
            lock=self._condition,
            observer=observer,
            clock=clock,
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"weir-run-{name}-{number}", daemon=True)
            for number in range(instances)
        ]

    @property
    def is_batched(self) -> bool:
        """Whether requests are put together."""
        return self._runner.is_batched

    def start(self) -> None:
        """Start the session threads."""
        self._deadlines.watch(self)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Refuse new requests; the threads end once what waits is answered."""
        with self._condition:
            self._places.closed = True
            self._condition.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads of a closed scheduler; True if all ended in time."""
        end_s = self._clock() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - self._clock()))
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended:
            self._deadlines.forget(self)
        return ended

    def load(self) -> Load:
        """What waits and what runs."""
        with self._condition:
            return self._places.load()

    def submit(self, request: InferRequest) -> None:
        """Queue a request.

        Raises:
            Overloaded: its rows do not fit into the queue.
            Draining: the scheduler is closed.
        """
        with self._condition:
            self._places.put(request, name=self._name, max_rows=self._max_queue_rows)
            if self._places.idle_threads:
                self._condition.notify()
        self._deadlines.expect(request.deadline_s)

    def cancel(self, request: InferRequest) -> None:
        """The caller is gone: free the request's place. A batch that runs is not disturbed."""
        with self._condition:
            is_ours = self._places.take(request)
        if is_ours:
            refuse(request, closed_error(request.arrived_s, request.deadline_s, self._clock()))

    def expire(self, now: float) -> float:
        """Answer every request whose deadline passed; the earliest deadline left, or infinity."""
        earliest = float("inf")
        late = []
        with self._condition:
            places = self._places
            for request in (*places.waiting, *places.running):
                if request.deadline_s <= now:
                    places.take(request)
                    late.append(request)
                else:
                    earliest = min(earliest, request.deadline_s)
        for request in late:
            refuse(request, DeadlineExceeded("the request's time is over"))
        return earliest

    @property
    def _policy(self) -> BatchPolicy:
        return self._batched if self._runner.is_batched else self._alone

    def _work(self) -> None:
        last: LastBatch | None = None
        while True:
            batch = self._next_batch(last)
            if batch is None:
                return
            last = None
            try:
                if batch:
                    last = self._runner.process(batch)
            except Exception:  # our bug: that batch is lost, its thread must not be
                logger.exception("batch lost model=%s", self._name)

    def _next_batch(self, last: LastBatch | None) -> list[InferRequest] | None:
        """Wait for a batch and move it to the running; None when closed and empty."""
        late: list[InferRequest] = []
        with self._condition:
            places = self._places
            while (pause_s := self._pause_s(last)) != 0.0:
                if pause_s is None and places.closed:
                    return None
                places.idle_threads += 1
                self._condition.wait(pause_s)
                places.idle_threads -= 1
            cut_s = self._clock()
            batch = batching.select(places.waiting, self._policy)
            for request in batch:
                places.take(request)
            late = [request for request in batch if request.deadline_s <= cut_s]
            batch = [request for request in batch if request.deadline_s > cut_s]
            places.running.update(batch)
            if places.waiting and places.idle_threads:
                # What is left may be due already: another thread has to look.
                self._condition.notify()
        for request in late:
            refuse(request, DeadlineExceeded("the deadline passed in the queue"))
        return batch

    def _pause_s(self, last: LastBatch | None) -> float | None:
        """How long to wait: None for a request, zero when a batch is due."""
        places = self._places
        if not places.waiting:
            return None
        if places.closed:
            return 0.0
        oldest = next(iter(places.waiting))
        now, rows, tokens = self._clock(), places.waiting_rows, self._waiting_tokens()
        pause_s = batching.delay_s(
            self._policy,
            waiting_rows=rows,
            waiting_tokens=tokens,
            oldest_s=oldest.queued_s,
            now=now,
        )
        if last is not None:
            regroup_wait_s = batching.regroup_wait_s(
                self._policy, last, waiting_rows=rows, waiting_tokens=tokens, now=now
            )
            pause_s = max(pause_s, regroup_wait_s)
        return max(pause_s, 0.0)

    def _waiting_tokens(self) -> int:
        """Entries of all that waits; of no interest where they have no limit."""
        if self._policy.max_tokens is None:
            return 0
        return sum(request.rows * request.length for request in self._places.waiting)
