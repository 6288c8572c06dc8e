"""Deadlines of requests, and of calls whose message has not come.

Thread: `weir-deadlines`, which sleeps until the earliest deadline it knows of. A request with an
earlier one wakes it, so nothing is polled; a request answered in time costs it nothing.
"""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from weir.server.threads import SupervisedThread

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
