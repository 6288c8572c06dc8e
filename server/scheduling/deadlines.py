"""Deadlines of requests, and the idle timeout of streams that wait for one message.

Thread: `weir-deadlines`, which sleeps until the earliest deadline it knows of. A request with an
earlier one wakes it, so nothing is polled; a request answered in time costs it nothing.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from weir.server.threads import SupervisedThread
from weir.server.transport.base import Call

logger = logging.getLogger(__name__)


class Expiring(Protocol):
    """A queue of requests with deadlines."""

    def expire(self, now: float) -> float:
        """Fail every request that is late; return the earliest deadline left, or infinity."""


class Deadlines:
    """Expires late requests while the sessions are busy."""

    thread_name = "weir-deadlines"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._queues: list[Expiring] = []
        self._wake_s = float("inf")
        self._stopped = False
        self._is_waiting = True
        self._turns = 0
        self._thread = SupervisedThread(target=self._run, name=self.thread_name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; deadlines are no longer watched."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def watch(self, queue: Expiring) -> None:
        """Expire this queue's requests from now on."""
        with self._condition:
            self._queues.append(queue)

    def forget(self, queue: Expiring) -> None:
        """Stop watching a queue, if it is watched."""
        with self._condition:
            if queue in self._queues:
                self._queues.remove(queue)

    def expect(self, deadline_s: float) -> None:
        """Wake in time for a deadline that was added to a queue."""
        if deadline_s < self._wake_s:
            with self._condition:
                self._wake_s = min(self._wake_s, deadline_s)
                self._condition.notify()

    def turns(self) -> float | None:
        """A number that changes when the thread turns; None while it has nothing to do."""
        has_work = not self._is_waiting or self._wake_s <= self._clock()
        return self._turns if has_work else None

    def _run(self) -> None:
        while True:
            with self._condition:
                self._is_waiting = True
                while not self._stopped and self._wake_s > (now := self._clock()):
                    self._condition.wait(min(self._wake_s - now, threading.TIMEOUT_MAX))
                if self._stopped:
                    return
                self._is_waiting = False
                self._turns += 1
                # A deadline added from here on lowers it again.
                self._wake_s = float("inf")
                queues = list(self._queues)
            for queue in queues:
                try:
                    self.expect(queue.expire(self._clock()))
                except Exception:  # our bug: the other queues still depend on this thread
                    logger.exception("queue not expired")


@dataclass(frozen=True, slots=True, eq=False)
class _IdleStream:
    deadline_s: float
    ended: Callable[[], None]


class IdleTimeout:
    """Ends streams that are open and send no message.

    gRPC itself sets no bound to a call without a deadline, so such a stream waits for its one
    message as long as a request without a deadline may take. `ModelStreamInfer` has no idle
    timeout: its streams stay open for many requests, and may rest before the first as between any
    two.
    """

    def __init__(
        self, limit_s: float, *, deadlines: Deadlines, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_s = limit_s
        self._deadlines = deadlines
        self._clock = clock
        self._lock = threading.Lock()
        # All may wait equally long, so the first is the next to be late.
        self._waiting: dict[_IdleStream, None] = {}
        deadlines.watch(self)

    def receive(
        self, call: Call, received: Callable[[bytes | None], None], ended: Callable[[], None]
    ) -> None:
        """Receive the message of a stream; `ended` is called if none comes in time."""
        if call.time_left_s() is not None:  # gRPC ends it
            call.receive(received)
            return
        with self._lock:
            stream = _IdleStream(self._clock() + self.limit_s, ended)
            self._waiting[stream] = None

        def in_time(payload: bytes | None) -> None:
            with self._lock:
                is_in_time = stream in self._waiting
                self._waiting.pop(stream, None)
            if is_in_time:
                received(payload)

        self._deadlines.expect(stream.deadline_s)
        call.receive(in_time)

    def expire(self, now: float) -> float:
        """End the streams that sent no message in time; the earliest deadline left, or infinity."""
        with self._lock:
            late = list(takewhile(lambda each: each.deadline_s <= now, self._waiting))
            for stream in late:
                del self._waiting[stream]
            earliest = next(iter(self._waiting), None)
        for stream in late:
            stream.ended()
        return float("inf") if earliest is None else earliest.deadline_s
