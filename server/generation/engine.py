"""The thread of one encoder-decoder: a bounded queue in front, `core` behind.

Thread: `weir-generate-<model>`, which encodes, steps and answers. The transport's threads add and cancel,
`weir-deadlines` expires. They meet in the queue, under one lock that is held to move references and never while a
graph runs.

A request is in one place: waiting, running (encoded, or being decoded), or gone. Whoever takes it out of its place
answers it, so it is answered once. One that is taken while it runs leaves its slots before the next step.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from server import batching
from server.deadlines import Deadlines, why_left
from server.errors import DeadlinePassed, Draining, Overloaded
from server.generation.core import Generation
from server.generation.metrics import GenerationTally
from server.generation.row import GenerationRequest
from server.places import Load, Places

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the engine does next.

    Attributes:
        gone: requests that were answered by others while their rows were here, and why.
        encoded: requests to be encoded.
    """

    gone: Mapping[GenerationRequest, str]
    encoded: Sequence[GenerationRequest]


class Engine:
    """Queue and thread of one encoder-decoder; it takes a scheduler's place.

    Args:
        name: of the model, for the thread's name and for messages.
        generation: the rows, and the graphs behind them.
        max_rows: of one run of the encoder.
        max_queue_rows: rows that may wait; more are refused at once.
        deadlines: watches the requests while they are here.
        tally: counts.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        generation: Generation,
        *,
        max_rows: int,
        max_queue_rows: int,
        deadlines: Deadlines,
        tally: GenerationTally,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._generation = generation
        self._max_rows = max_rows
        self._max_queue_rows = max_queue_rows
        self._deadlines = deadlines
        self._tally = tally
        self._clock = clock
        self._condition = threading.Condition(threading.Lock())
        self._places: Places[GenerationRequest] = Places()
        self._gone: dict[GenerationRequest, str] = {}
        # How many rows of a request are still decoded; of the engine's thread alone.
        self._open: dict[GenerationRequest, int] = {}
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
            places = self._places
            running = len(places.running) + places.answering
            return Load(len(places.waiting), places.waiting_rows, running)

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request.

        Raises:
            Overloaded: its rows do not fit into the queue.
            Draining: the engine is closed.
        """
        with self._condition:
            places = self._places
            if places.closed:
                raise Draining(f"model {self._name!r} is being unloaded")
            if places.waiting and places.waiting_rows + request.rows > self._max_queue_rows:
                raise Overloaded(
                    f"model {self._name!r}: {places.waiting_rows} rows wait, "
                    f"the limit is {self._max_queue_rows}"
                )
            places.waiting[request] = None
            places.waiting_rows += request.rows
            self._condition.notify()
        self._deadlines.expect(request.deadline_s)

    def cancel(self, request: GenerationRequest) -> None:
        """The caller is gone: its rows leave before the next step."""
        error = why_left(request.arrived_s, request.deadline_s, self._clock())
        with self._condition:
            is_ours = self._take(request, _reason_of(error))
        if is_ours:
            request.fail(error)

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
            request.fail(DeadlinePassed("the request's time is over"))
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
            try:
                self._process(turn)
            except Exception as error:  # our bug: those here are lost, the thread must not be
                logger.exception("step lost model=%s", self._name)
                self._give_up(error)

    def _next(self) -> _Turn | None:
        """Wait until there is something to do; None when closed and empty."""
        with self._condition:
            places, generation = self._places, self._generation
            while not (places.waiting or self._gone or generation.is_busy):
                if places.closed:
                    return None
                self._condition.wait()
            gone, self._gone = self._gone, {}
            batch = batching.select(places.waiting, self._max_rows) if generation.wants_rows else []
            now = self._clock()
            late = [request for request in batch if request.deadline_s <= now]
            batch = [request for request in batch if request.deadline_s > now]
            for request in (*late, *batch):
                places.take(request)
            places.running.update(batch)
        for request in late:
            request.fail(DeadlinePassed("the deadline passed in the queue"))
        return _Turn(gone, batch)

    def _process(self, turn: _Turn) -> None:
        if turn.gone:
            self._drop(turn.gone)
        if turn.encoded:
            self._encode(turn.encoded)
        if self._generation.is_busy:
            self._step()
        self._tally.hold(self._generation.used_slots)

    def _drop(self, requests: Mapping[GenerationRequest, str]) -> None:
        for request, reason in requests.items():
            self._open.pop(request, None)
            self._tally.dropped(reason, self._generation.drop(request))

    def _encode(self, requests: Sequence[GenerationRequest]) -> None:
        """Encode some requests together, or one by one if that fails: a bad one harms no other."""
        rows = [row for request in requests for row in request.sources]
        started_s = self._clock()
        try:
            self._generation.encode(rows)
        except Exception as error:  # noqa: BLE001 - the one place where an encoding may fail
            if len(requests) == 1:
                self._fail(requests[0], error)
                return
            for request in requests:
                self._encode([request])
            return
        now = self._clock()
        for request in requests:
            self._open[request] = len(request.sources)
        queued_s = [started_s - request.queued_s for request in requests]
        self._tally.encoded(queued_s, now - started_s)

    def _step(self) -> None:
        started_s = self._clock()
        try:
            stepped = self._generation.step()
        except Exception as error:  # noqa: BLE001 - the one place where a step may fail
            # Every row was looked at before it was queued, so no row is to blame: none can go on.
            self._give_up(error)
            return
        now = self._clock()
        for row in stepped.joined:
            row.first_s = now
        self._tally.stepped(stepped, now - started_s, now)
        for row in stepped.ended:
            if row.owner is not None:
                self._end(row.owner)

    def _end(self, request: GenerationRequest) -> None:
        """One more row of a request has ended; answer it if that was the last."""
        self._open[request] -= 1
        if self._open[request]:
            return
        del self._open[request]
        with self._condition:
            places = self._places
            is_ours = places.take(request)
            places.answering += is_ours
        if not is_ours:
            return
        try:
            request.answer()
            if request.is_answered:
                self._tally.answered(request.rows, self._clock() - request.arrived_s)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be sent is that caller's alone
            self._refuse(request, error)
        finally:
            with self._condition:
                places.answering -= 1

    def _give_up(self, error: Exception) -> None:
        """Fail every request whose rows are here."""
        requests = list(self._open)
        self._drop(dict.fromkeys(requests, "failed"))
        for request in requests:
            self._fail(request, error)

    def _fail(self, request: GenerationRequest, error: Exception) -> None:
        with self._condition:
            is_ours = self._places.take(request)
        if is_ours:
            self._refuse(request, error)

    @staticmethod
    def _refuse(request: GenerationRequest, error: Exception) -> None:
        try:
            request.fail(error)
        except Exception:  # our bug, and one caller's; the others still wait for theirs
            logger.exception("failure lost")


def _reason_of(error: Exception) -> str:
    return "deadline" if isinstance(error, DeadlinePassed) else "cancelled"
