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
from weir.server.scheduling.places import Places
from weir.server.scheduling.request import Load, refuse
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
        self._name = name
        self._policy = policy
        self._max_queue_rows = max_queue_rows
        self._deadlines = deadlines
        self._clock = clock
        self._condition = threading.Condition(threading.Lock())
        self._places: Places[GenerationRequest] = Places()
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
            self._places.closed = True
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
            return self._places.load()

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request.

        Raises:
            Overloaded: its rows do not fit into the queue.
            Draining: the engine is closed.
        """
        with self._condition:
            self._places.put(request, name=self._name, max_rows=self._max_queue_rows)
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
        earliest = float("inf")
        late = []
        with self._condition:
            places = self._places
            for request in (*places.waiting, *places.running):
                if request.deadline_s <= now:
                    self._take(request, "deadline")
                    late.append(request)
                else:
                    earliest = min(earliest, request.deadline_s)
        for request in late:
            refuse(request, DeadlineExceeded("the request's time is over"))
        return earliest

    def _take(self, request: GenerationRequest, reason: str) -> bool:
        """Remove a request from wherever it is, under the lock; its rows are dropped by the thread."""
        was_running = request in self._places.running
        if not self._places.take(request):
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
            places, worker = self._places, self._worker
            while not (places.waiting or self._gone or worker.is_busy):
                if places.closed:
                    return None
                self._condition.wait()
            gone, self._gone = self._gone, {}
            if worker.wants_requests:
                now = self._clock()
                for request in batching.select(places.waiting, self._policy):
                    places.take(request)
                    (batch if request.deadline_s > now else late).append(request)
            places.running.update(batch)
        for request in late:
            refuse(request, DeadlineExceeded("the deadline passed in the queue"))
        return Turn(gone, batch)

    @contextmanager
    def _leaving(self, request: GenerationRequest) -> Iterator[bool]:
        """Take a request out of the running, to be answered; False if others did meanwhile."""
        places = self._places
        with self._condition:
            is_ours = places.take(request)
            places.answering += is_ours
        try:
            yield is_ours
        finally:
            with self._condition:
                places.answering -= is_ours


def _reason_of(error: Exception) -> str:
    return "deadline" if isinstance(error, DeadlineExceeded) else "cancelled"
