"""The thread of one encoder-decoder: a bounded queue in front, a `worker` behind.

Thread: `weir-generate-<model>`, which encodes, steps and answers. The transport's threads add and cancel,
`weir-deadlines` expires. They meet in the queue, under one lock that is held to move references and never while a
graph runs.

A request is in one place: waiting, running (encoded, or being decoded), or gone. Whoever takes it out of its place
answers it, so it is answered once. One that is taken while it runs leaves its slots before the next step.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from weir.server.errors import DeadlineExceeded
from weir.server.generation.decoder_batch import Generation
from weir.server.generation.metrics import GenerationStats
from weir.server.generation.row import GenerationRequest
from weir.server.generation.worker import Turn, Worker
from weir.server.scheduling import batching
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Load, refuse
from weir.server.scheduling.scheduler import RequestQueue
from weir.server.transport.status import closed_error


class Engine:
    """Queue and thread of one encoder-decoder; it takes a scheduler's place.

    Args:
        name: of the model, for the thread's name and for messages.
        generation: the rows, and the graphs behind them.
        policy: which requests are encoded together.
        max_queue_rows: rows that may wait; more are refused at once.
        deadlines: watches the requests while they are here.
        stats: counts.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        generation: Generation,
        *,
        policy: BatchPolicy,
        max_queue_rows: int,
        deadlines: Deadlines,
        stats: GenerationStats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._deadlines = deadlines
        self._clock = clock
        self._condition = threading.Condition(threading.Lock())
        self._queue: RequestQueue[GenerationRequest] = RequestQueue(name, max_queue_rows)
        self._gone: dict[GenerationRequest, str] = {}
        self._worker = Worker(generation, leaving=self._leaving, stats=stats, clock=clock)
        self._thread = threading.Thread(
            target=self._work, name=f"weir-generate-{name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._deadlines.watch(self)
        self._thread.start()

    def close(self) -> None:
        """Refuse new requests; the thread ends once what is here is answered."""
        with self._condition:
            self._queue.is_closed = True
            self._condition.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread of a closed engine; True if it ended in time."""
        self._thread.join(max(0.0, timeout_s))
        ended = not self._thread.is_alive()
        if ended:
            self._deadlines.forget(self)
        return ended

    def load(self) -> Load:
        """What waits and what is decoded."""
        with self._condition:
            return self._queue.load()

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request.

        Raises:
            Overloaded: its rows do not fit into the queue.
            Draining: the engine is closed.
        """
        with self._condition:
            self._queue.put(request)
            self._condition.notify()
        self._deadlines.expect(request.deadline_s)

    def cancel(self, request: GenerationRequest) -> None:
        """The caller is gone: its rows leave before the next step."""
        error = closed_error(request.arrived_s, request.deadline_s, self._clock())
        with self._condition:
            is_ours = self._take(request, _reason_of(error))
        if is_ours:
            refuse(request, error)

    def expire(self, now: float) -> float:
        """Answer every request whose deadline passed; the earliest deadline left, or infinity."""
        with self._condition:
            late, earliest = self._queue.late(now)
            for request in late:
                self._take(request, "deadline")
        for request in late:
            refuse(request, DeadlineExceeded("the request's time is over"))
        return earliest

    def _take(self, request: GenerationRequest, reason: str) -> bool:
        """Remove a request from wherever it is, under the lock; its rows are dropped by the thread."""
        was_running = request in self._queue.running
        if not self._queue.take(request):
            return False
        if was_running:
            self._gone[request] = reason
            self._condition.notify()
        return True

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            self._worker.process(turn)

    def _next(self) -> Turn | None:
        """Wait until there is something to do; None when closed and empty."""
        late: list[GenerationRequest] = []
        batch: list[GenerationRequest] = []
        with self._condition:
            queue, worker = self._queue, self._worker
            while not (queue.waiting or self._gone or worker.is_busy):
                if queue.is_closed:
                    return None
                self._condition.wait()
            gone, self._gone = self._gone, {}
            if worker.wants_requests:
                now = self._clock()
                for request in batching.select(queue.waiting, self._policy):
                    queue.take(request)
                    (batch if request.deadline_s > now else late).append(request)
            queue.running.update(batch)
        for request in late:
            refuse(request, DeadlineExceeded("the deadline passed in the queue"))
        return Turn(gone, batch)

    @contextmanager
    def _leaving(self, request: GenerationRequest) -> Iterator[bool]:
        """Take a request out of the running, to be answered; False if others did meanwhile."""
        queue = self._queue
        with self._condition:
            is_ours = queue.take(request)
            queue.answering += is_ours
        try:
            yield is_ours
        finally:
            with self._condition:
                queue.answering -= is_ours


def _reason_of(error: Exception) -> str:
    return "deadline" if isinstance(error, DeadlineExceeded) else "cancelled"
