"""Worker pool: a bounded queue of jobs that prepare requests for their models, and its threads.

Threads: `<name>_<n>`. The transport's threads submit and cancel, `weir-deadlines` expires. They
share one lock, which is held to move references and never while a job runs.

A job is in exactly one place: waiting, running, or gone. The thread that takes a job out of its
place continues or answers it, so it is answered once, as in `scheduler`.

Peers take turns; see `fair_queue`.

A job that cannot be done by its deadline is refused when it arrives, as in `request_queue`: by the
measured time of a job, which depends on its bytes. A free thread takes any job.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from weir.server.errors import DeadlineExceeded, Draining, Overloaded
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.fair_queue import FairQueue
from weir.server.scheduling.request import refuse
from weir.server.scheduling.service_time import USABLE_SHARE, Ahead, ServiceTime, answer_s
from weir.server.threads import SupervisedThread
from weir.server.transport.status import closed_error

logger = logging.getLogger(__name__)


class Job(Protocol):
    """One request until it is ready for its model.

    Attributes:
        peer: the connection that it came on; each connection has its turn.
        payload_bytes: memory that it holds while it waits.
        deadline_s: never run after this time.
        is_wanted: False, from any thread, once the request is answered: `work` may stop early.
    """

    peer: str
    payload_bytes: int
    arrived_s: float
    deadline_s: float
    is_wanted: bool

    def work(self) -> None:
        """Parse or preprocess the request, on a thread of the pool."""

    def proceed(self) -> None:
        """Queue the request for its model; called after `work`, unless it is answered."""

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of the queue; a job beyond them is refused at once."""

    jobs: int = 256
    payload_bytes: int = 256 * 1024 * 1024


class WorkerPool:
    """Queue and threads.

    Args:
        budget: of the bytes of all requests in flight; jobs that wait or run count too.
    """

    def __init__(
        self,
        threads: int,
        *,
        deadlines: Deadlines,
        name: str = "weir-preprocess",
        limits: PoolLimits | None = None,
        budget: ByteBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadlines = deadlines
        self._name = name
        self._limits = limits or PoolLimits()
        self._budget = budget or ByteBudget(name)
        self._clock = clock
        self._condition = threading.Condition(threading.Lock())
        self._waiting: FairQueue[Job] = FairQueue()
        self._waiting_bytes = 0
        self._running: set[Job] = set()
        # The jobs at work, with the time at which each is expected to be done. A job that is
        # answered before its work ends is no longer running, but still keeps its thread.
        self._busy: dict[Job, float] = {}
        # The work of a job is its bytes, and each runs alone.
        self._service = ServiceTime(1.0)
        self._closed = False
        self._threads = [
            SupervisedThread(target=self._run, name=f"{name}_{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        self._deadlines.watch(self)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Refuse new jobs; the threads end once the waiting jobs are done."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads of a closed pool; True if all ended in time."""
        end_s = self._clock() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - self._clock()))
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended:
            self._deadlines.forget(self)
        return ended

    def waiting(self) -> int:
        """Number of waiting jobs."""
        with self._condition:
            return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Draining: the pool is closed.
            Overloaded: it does not fit, or cannot be done by its deadline.
        """
        with self._condition:
            if self._closed:
                raise Draining("the server is stopping")
            # An empty queue takes a job of any size, which would otherwise never be taken.
            if self._waiting and (
                len(self._waiting) >= self._limits.jobs
                or self._waiting_bytes + job.payload_bytes > self._limits.payload_bytes
            ):
                raise Overloaded(
                    f"{self._name}: {len(self._waiting)} requests of {self._waiting_bytes} bytes "
                    f"wait, the limits are {self._limits.jobs} and {self._limits.payload_bytes}"
                )
            if self._waiting or len(self._busy) == len(self._threads):
                self._check_time(job)
            self._budget.take(job.payload_bytes)
            self._waiting.add(job)
            self._waiting_bytes += job.payload_bytes
            self._condition.notify()
        self._deadlines.expect(job.deadline_s)

    def cancel(self, job: Job) -> None:
        """Free the job's place: the caller is gone."""
        with self._condition:
            is_ours = self._take(job)
        if is_ours:
            refuse(job, closed_error(job.arrived_s, job.deadline_s, self._clock()))

    def expire(self, now: float) -> float:
        """Fail every job whose deadline passed; returns the earliest deadline left, or infinity."""
        earliest = float("inf")
        late = []
        with self._condition:
            for job in (*self._waiting, *self._running):
                if job.deadline_s <= now:
                    self._take(job)
                    late.append(job)
                else:
                    earliest = min(earliest, job.deadline_s)
        for job in late:
            refuse(job, DeadlineExceeded("the request's time is over"))
        return earliest

    def _check_time(self, job: Job) -> None:
        """Refuse a job that cannot be done by its deadline; under the lock."""
        now = self._clock()
        left_s = job.deadline_s - now
        if not self._service.runs or left_s <= 0:
            return
        running_s = 0.0
        if len(self._busy) == len(self._threads):
            running_s = max(0.0, min(self._busy.values()) - now)
        jobs, waiting = self._waiting.ahead(job.peer), len(self._waiting)
        work = self._waiting_bytes * jobs / waiting if waiting else 0.0
        ahead = Ahead(jobs, work, len(self._threads), running_s)
        done_s = answer_s(self._service, ahead, rows=1, work=job.payload_bytes)
        if done_s > USABLE_SHARE * left_s:
            raise Overloaded(
                f"{self._name}: {waiting} requests wait, this one is expected to be done "
                f"in {done_s:.3g} s, it has {left_s:.3g} s",
                done_s - USABLE_SHARE * left_s,
            )

    def _take(self, job: Job) -> bool:
        """Remove a job from its place, under the lock; False if it is gone already."""
        if job in self._waiting:
            self._waiting.remove(job)
            self._waiting_bytes -= job.payload_bytes
        elif job in self._running:
            self._running.remove(job)
        else:
            return False
        job.is_wanted = False
        self._budget.give_back(job.payload_bytes)
        return True

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._process(job)
            except Exception:  # our bug: the thread goes on with the next job
                logger.exception("job lost")

    def _next(self) -> Job | None:
        """Wait for a job and move it to the running; None when closed and empty."""
        with self._condition:
            while not self._waiting:
                if self._closed:
                    return None
                self._condition.wait()
            job = self._waiting.start()
            self._waiting_bytes -= job.payload_bytes
            self._running.add(job)
            self._busy[job] = self._clock() + self._service.of(job.payload_bytes)
            return job

    def _process(self, job: Job) -> None:
        started_s = self._clock()
        if job.deadline_s <= started_s:
            failure: Exception | None = DeadlineExceeded("the deadline passed in the queue")
        else:
            failure = _failure_of(job.work)
        with self._condition:
            self._waiting.end(job, self._clock() - started_s)
            del self._busy[job]
            is_ours = self._take(job)
            # A failed job, and one whose caller left, may have stopped early.
            if is_ours and failure is None:
                seconds = self._clock() - started_s
                self._service = self._service.measured(max(1, job.payload_bytes), seconds)
        if is_ours and failure is None:
            # The model's queue may refuse it.
            failure = _failure_of(job.proceed)
        if is_ours and failure is not None:
            refuse(job, failure)


def _failure_of(step: Callable[[], None]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - any failure is sent to the caller
        return error
    return None
