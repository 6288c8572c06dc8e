"""Scheduler of one model version: a bounded request queue, and session threads that run batches.

Threads: `weir-run-<model>-<n>`, one per instance, each of which cuts, runs and answers batches. The
transport's threads submit and cancel, `weir-deadlines` expires. They share the request queue under
one lock, which is held to move references and never while a batch runs.

Rules:
- A request is in exactly one place: waiting, running, or gone. The thread that takes it out of its
  place answers it, so it is answered once.
- If the run of several requests fails, each of them gets a run of its own, so that a bad request
  harms no other. A request that was cancelled or expired meanwhile is not run again.
- Outputs with another number of rows than the inputs show that the first axis is not the batch
  axis. No part of that answer is sent: the requests are run alone, and the model is not batched
  from then on.
- A request without a key runs alone, and its outputs are sent whole.
- A run that may not end by itself is stopped when all its requests are cancelled or expired.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from weir.server.errors import DeadlineExceeded
from weir.server.runtime import collate
from weir.server.runtime.collate import Padding, Tokens
from weir.server.runtime.cpu_priority import RunPriority
from weir.server.runtime.session import RunStop
from weir.server.scheduling import batching
from weir.server.scheduling.batching import (
    BATCHED_BY_CONTRACT,
    Basis,
    BatchDecision,
    BatchPolicy,
    LastBatch,
)
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import InferRequest, Load, refuse
from weir.server.scheduling.request_queue import Batch, RequestQueue
from weir.server.scheduling.service_time import ServiceTime
from weir.server.telemetry.model_stats import BatchTimes
from weir.server.telemetry.request_record import BatchRecord
from weir.server.threads import SupervisedThread
from weir.server.transport.status import closed_error
from weir.server.transport.wakeups import Wakeups

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Computes every output of a batch; see `Session.run`."""

StoppableRun = Callable[[Mapping[str, Array], RunStop], dict[str, Array]]
"""The same, and fails once it is stopped."""

Observer = Callable[[Sequence[InferRequest], BatchTimes, Tokens], None]
"""Counts a batch once it is answered; see `ModelStats.batch_ran`."""


class Scheduler:
    """Request queue and session threads of one model version.

    Args:
        run: computes every output of a batch; called from several threads.
        has_rows: whether the first axis of every tensor is that of the rows.
        has_fixed_rows: whether an answer must have as many rows as its request. If not, the outputs
            of a request that ran alone are sent whole.
        decision: whether requests may share a batch; they never do again once a run disproves it.
        stoppable_run: in place of `run`, of a graph whose run may go on for ever.
        paddings: the axes along which joined requests are padded.
        is_on_cpu: whether runs take the time of cores, and long ones go after short ones.
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
        decision: BatchDecision = BATCHED_BY_CONTRACT,
        stoppable_run: StoppableRun | None = None,
        paddings: Sequence[Padding] = (),
        is_on_cpu: bool = True,
        wakeups: Wakeups | None = None,
        budget: ByteBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._run = run
        self._batched = policy
        self._alone = replace(policy, max_rows=1, max_queue_delay_s=0.0, regroup_share=0.0)
        self._has_rows = has_rows
        self._has_fixed_rows = has_fixed_rows
        self.decision = decision
        self.budget = budget or ByteBudget(name)
        self._stoppable_run = stoppable_run
        # The batches whose runs may have to be stopped.
        self._stops: dict[RunStop, Sequence[InferRequest]] = {}
        self._paddings = paddings
        self._is_on_cpu = is_on_cpu
        self._deadlines = deadlines
        self._observer = observer
        self._clock = clock
        self._queue: RequestQueue[Mapping[str, Array]] = RequestQueue(
            name, max_queue_rows, ServiceTime(policy.max_rows), instances
        )
        self._condition = self._queue.condition
        self._idle_threads = 0
        self._wakeups = wakeups or Wakeups()
        # Whether the I/O thread still reads requests that have arrived.
        self._is_gathering = False
        self._threads = [
            SupervisedThread(target=self._work, name=f"weir-run-{name}-{number}", daemon=True)
            for number in range(instances)
        ]

    def start(self) -> None:
        """Start the session threads."""
        self._deadlines.watch(self)
        for thread in self._threads:
            thread.start()

    def expect_run(self, work: int, seconds: float) -> None:
        """Add a run that was measured before the start to the estimate of the service time."""
        with self._condition:
            self._queue.service = self._queue.service.measured(work, seconds)

    def close(self) -> None:
        """Refuse new requests; the threads end once the waiting ones are answered."""
        self._queue.close()

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
        """Waiting and running requests."""
        return self._queue.load(self._clock())

    def submit(self, request: InferRequest) -> None:
        """Queue a request; see `ReadyRequest.submit`."""
        with self._condition:
            queue = self._queue
            queue.put(request, self._clock())
            if queue.waiting.rows >= self._batched.max_rows:
                self._is_gathering = False
            elif not self._is_gathering:
                self._is_gathering = self._wakeups.gather(self._gathered)
            if self._idle_threads and not self._is_gathering:
                self._condition.notify()
        self._deadlines.expect(request.deadline_s)

    def check_time(self, deadline_s: float) -> None:
        """Refuse a request that could not be answered in time, before it is preprocessed."""
        with self._condition:
            self._queue.check_time(deadline_s, self._clock())

    def cancel(self, request: InferRequest) -> None:
        """Free the place of a request whose caller is gone; a running batch is not disturbed."""
        with self._condition:
            is_ours = self._queue.take(request)
            self._stop_runs()
        if is_ours:
            refuse(request, closed_error(request.arrived_s, request.deadline_s, self._clock()))

    def expire(self, now: float) -> float:
        """Fail every request whose deadline passed; the earliest deadline left, or infinity."""
        with self._condition:
            late, earliest = self._queue.late(now)
            for request in late:
                self._queue.take(request)
            self._stop_runs()
        for request in late:
            refuse(request, DeadlineExceeded("the request's time is over"))
        return earliest

    def _gathered(self) -> None:
        """Called once the I/O thread has read the requests that have arrived."""
        with self._condition:
            self._is_gathering = False
            if self._queue.waiting and self._idle_threads:
                self._condition.notify()

    def _work(self) -> None:
        last: LastBatch | None = None
        priority = RunPriority() if self._is_on_cpu else None
        while True:
            batch = self._next_batch(last)
            if batch is None:
                return
            last = None
            try:
                if batch.requests:
                    last = self._process(batch.requests, batch.cut_s)
            except Exception:  # our bug: the thread goes on with the next batch
                logger.exception("batch lost model=%s", self._name)
            if priority is not None and last is not None:
                priority.ran(last.run_s)

    def _next_batch(self, last: LastBatch | None) -> Batch[Mapping[str, Array]] | None:
        """Wait for a batch and move it to the running requests; None when closed and empty."""
        thread = threading.get_ident()
        with self._condition:
            queue = self._queue
            queue.ended(thread, None if last is None else last.ended_s)
            while (pause_s := self._pause_s(last)) != 0.0:
                if pause_s is None and queue.is_closed:
                    return None
                self._idle_threads += 1
                self._condition.wait(pause_s)
                self._idle_threads -= 1
            batch = queue.cut(self._policy, self._clock(), thread)
            if queue.waiting and self._idle_threads:
                # The requests left may be due already: another thread has to look.
                self._condition.notify()
        for request, error in batch.refused:
            refuse(request, error)
        return batch

    @property
    def _policy(self) -> BatchPolicy:
        return self._batched if self.decision.is_batched else self._alone

    def _pause_s(self, last: LastBatch | None) -> float | None:
        """How long to wait: None for a request, zero when a batch is due."""
        queue, policy = self._queue, self._policy
        if not queue.waiting:
            return None
        if queue.is_closed:
            return 0.0
        now, rows, tokens = self._clock(), queue.waiting.rows, queue.waiting.work
        if self._is_gathering and rows < policy.max_rows:
            return None
        pause_s = batching.delay_s(
            policy,
            waiting_rows=rows,
            waiting_tokens=tokens,
            oldest_s=queue.waiting.oldest_s(),
            now=now,
        )
        if last is not None:
            regroup_wait_s = batching.regroup_wait_s(
                policy, last, waiting_rows=rows, waiting_tokens=tokens, now=now
            )
            pause_s = max(pause_s, regroup_wait_s)
        return max(pause_s, 0.0)

    def _process(self, batch: list[InferRequest], cut_s: float) -> LastBatch | None:
        """Run a batch and answer it; None if it failed."""
        record = _record(batch, cut_s)
        inputs = [request.inputs for request in batch]
        try:
            joined = collate.join(inputs, self._paddings)
            run_s = self._clock()
            outputs = self._outputs(batch, joined)
            ran_s = self._clock()
            if record is not None:
                record.run_s, record.ran_s = run_s, ran_s
            parts = [outputs] if batch[0].key is None else self._parts(outputs, inputs)
        except Exception as error:  # noqa: BLE001 - any failure of a run is handled here
            if isinstance(error, collate.RowCountError):
                self._stop_batching(error)
            elif len(batch) > 1:
                logger.warning("batch failed, running its requests singly model=%s", self._name)
            self._retry_or_fail(batch, error)
            return None
        with self._condition:
            left_rows = self._queue.waiting.rows
        with self._queue.leaving(batch) as taken:
            with self._wakeups.corked():
                _answer(batch, parts, taken)
            times = BatchTimes(cut_s, run_s, ran_s, self._clock())
            self._observer(batch, times, collate.count_tokens(joined, self._paddings))
        rows = sum([request.rows for request in batch])
        return LastBatch(rows, ran_s - run_s, times.answered_s, left_rows)

    def _outputs(
        self, batch: Sequence[InferRequest], joined: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Run a batch. A stoppable run fails if all its requests leave meanwhile."""
        if self._stoppable_run is None:
            return self._run(joined)
        stop = RunStop()
        with self._condition:
            self._stops[stop] = batch
            # They may have left before.
            self._stop_runs()
        try:
            return self._stoppable_run(joined, stop)
        finally:
            with self._condition:
                del self._stops[stop]

    def _stop_runs(self) -> None:
        """Stop the runs that no request waits for; called under the lock."""
        for stop, batch in self._stops.items():
            if not any(request in self._queue.running for request in batch):
                stop.set()

    def _parts(
        self, outputs: dict[str, Array], inputs: Sequence[Mapping[str, Array]]
    ) -> list[dict[str, Array]]:
        """Each request's part of the outputs."""
        if not self._has_rows:
            return [outputs]
        if len(inputs) > 1 and not self.decision.is_batched:
            # Another thread stopped batching while this batch ran: a right row count proves
            # nothing.
            raise collate.RowCountError("the model is not batched any longer")
        if len(inputs) > 1 or self._has_fixed_rows:
            return collate.split(outputs, inputs, self._paddings)
        if self.decision.is_batched:
            try:
                collate.check_rows(outputs, len(next(iter(inputs[0].values()))))
            except collate.RowCountError as error:
                self._stop_batching(error)
        return [outputs]

    def _stop_batching(self, error: collate.RowCountError) -> None:
        with self._condition:
            if not self.decision.is_batched:
                return
            self.decision = BatchDecision(
                is_batched=False, basis=Basis.ROW_COUNT, reason=str(error)
            )
            # Requests that wait for a batch to fill are due now.
            self._condition.notify_all()
        logger.warning("model is not batched from now on model=%s reason=%s", self._name, error)

    def _retry_or_fail(self, batch: list[InferRequest], error: Exception) -> None:
        """Run each request of a failed batch alone; fail a request that ran alone."""
        if len(batch) == 1:
            with self._queue.leaving(batch) as taken:
                for request in taken:
                    refuse(request, error)
            return
        for request in batch:
            if self._may_run(request):
                self._process([request], self._clock())

    def _may_run(self, request: InferRequest) -> bool:
        """Whether a request of a failed batch still runs, and has time left for another run."""
        with self._condition:
            if request not in self._queue.running:
                return False
            is_late = request.deadline_s <= self._clock()
            if is_late:
                self._queue.take(request)
        if is_late:
            refuse(request, DeadlineExceeded("the deadline passed before its run"))
        return not is_late


def _answer(
    batch: list[InferRequest], parts: list[dict[str, Array]], taken: set[InferRequest]
) -> None:
    for request, part in zip(batch, parts, strict=True):
        if request not in taken:
            continue
        try:
            request.answer(part)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be sent fails it alone
            refuse(request, error)


def _record(batch: Sequence[InferRequest], cut_s: float) -> BatchRecord | None:
    """The record that the recorded requests of a batch share; None if there are none."""
    records = [request.record for request in batch if request.record is not None]
    if not records:
        return None
    shared = BatchRecord(sum(request.rows for request in batch), cut_s)
    for record in records:
        record.batch = shared
    return shared
