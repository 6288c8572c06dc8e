"""What takes long before a request can be queued for its model: a bounded queue, and threads behind it.

Threads: `weir-decode_<n>`, one per core. The transport's threads add and cancel, `weir-deadlines`
expires. They meet under one lock that is held to move references and never while something is decoded.

A job is in exactly one place: waiting, at work, or gone. Whoever takes it out of that place is the one
who goes on with it, or answers it: so it is answered once, as in `scheduler`.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from weir.server.errors import DeadlineExceeded, Draining, Overloaded
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import refuse
from weir.server.transport.status import closed_error

logger = logging.getLogger(__name__)


class Job(Protocol):
    """One request until it is ready for its model.

    Attributes:
        payload_bytes: what it holds on to while it waits.
        arrived_s: when the call came.
        deadline_s: never worked on after this time.
        is_wanted: set to False, from any thread, once somebody answered it: work may stop.
    """

    payload_bytes: int
    arrived_s: float
    deadline_s: float
    is_wanted: bool

    def work(self) -> None:
        """What takes long, on a thread of the pool."""

    def proceed(self) -> None:
        """Go on to the model; called after `work`, if the request is still wanted."""

    def fail(self, error: Exception) -> None:
        """Say why it cannot go on."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What may wait in front of the threads.

    Attributes:
        jobs: that wait.
        payload_bytes: that they hold together.
    """

    jobs: int = 256
    payload_bytes: int = 256 * 1024 * 1024


class WorkerPool:
    """Queue and threads.

    Args:
        threads: that work side by side.
        deadlines: watches the jobs while they are here.
        limits: of the queue; what does not fit is refused at once.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        threads: int,
        *,
        deadlines: Deadlines,
        limits: DecodeLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadlines = deadlines
        self._limits = limits or DecodeLimits()
        self._clock = clock
        self._condition = threading.Condition(threading.Lock())
        self._waiting: OrderedDict[Job, None] = OrderedDict()
        self._waiting_bytes = 0
        self._at_work: set[Job] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"weir-decode_{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        self._deadlines.watch(self)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Refuse new jobs; the threads end once what waits is done."""
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
        """How many jobs wait for a thread."""
        with self._condition:
            return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Overloaded: it does not fit into the queue.
            Draining: the pool is closed.
        """
        with self._condition:
            if self._closed:
                raise Draining("the server is stopping")
            # Into an empty queue every job fits: refused there, it would be refused for ever.
            if self._waiting and (
                len(self._waiting) >= self._limits.jobs
                or self._waiting_bytes + job.payload_bytes > self._limits.payload_bytes
            ):
                raise Overloaded(
                    f"{len(self._waiting)} requests of {self._waiting_bytes} bytes wait to be "
                    f"decoded, the limits are {self._limits.jobs} and {self._limits.payload_bytes}"
                )
            self._waiting[job] = None
            self._waiting_bytes += job.payload_bytes
            self._condition.notify()
        self._deadlines.expect(job.deadline_s)

    def cancel(self, job: Job) -> None:
        """The caller is gone: free the job's place."""
        with self._condition:
            is_ours = self._take(job)
        if is_ours:
            refuse(job, closed_error(job.arrived_s, job.deadline_s, self._clock()))

    def expire(self, now: float) -> float:
        """Answer every job whose deadline passed; the earliest deadline left, or infinity."""
        earliest = float("inf")
        late = []
        with self._condition:
            for job in (*self._waiting, *self._at_work):
                if job.deadline_s <= now:
                    self._take(job)
                    late.append(job)
                else:
                    earliest = min(earliest, job.deadline_s)
        for job in late:
            refuse(job, DeadlineExceeded("the request's time is over"))
        return earliest

    def _take(self, job: Job) -> bool:
        """Remove a job from wherever it is, under the lock; False if it is gone already."""
        if job in self._waiting:
            del self._waiting[job]
            self._waiting_bytes -= job.payload_bytes
        elif job in self._at_work:
            self._at_work.remove(job)
        else:
            return False
        job.is_wanted = False
        return True

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._process(job)
            except Exception:  # our bug: that job is lost, its thread must not be
                logger.exception("job lost")

    def _next(self) -> Job | None:
        """Wait for a job and move it to those at work; None when closed and empty."""
        with self._condition:
            while not self._waiting:
                if self._closed:
                    return None
                self._condition.wait()
            job, _ = self._waiting.popitem(last=False)
            self._waiting_bytes -= job.payload_bytes
            self._at_work.add(job)
            return job

    def _process(self, job: Job) -> None:
        if job.deadline_s <= self._clock():
            failure: Exception | None = DeadlineExceeded("the deadline passed in the queue")
        else:
            failure = _failure_of(job.work)
        with self._condition:
            is_ours = self._take(job)
        if is_ours and failure is None:
            # The model's own queue may refuse it.
            failure = _failure_of(job.proceed)
        if is_ours and failure is not None:
            refuse(job, failure)


def _failure_of(step: Callable[[], None]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - each kind of failure is its caller's
        return error
    return None
