"""One thread that answers requests whose time is over while a session is busy elsewhere.

It sleeps until the earliest deadline it knows of. A request with an earlier one wakes it, so nothing
is polled; a request answered in time costs it nothing.
"""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class Expiring(Protocol):
    """Something that holds requests with deadlines."""

    def expire(self, now: float) -> float:
        """Answer what is due; return the earliest deadline left, or infinity."""


class Deadlines:
    """The thread `weir-deadlines`.

    Args:
        clock: monotonic seconds, the clock of every deadline.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._queues: list[Expiring] = []
        self._wake_s = float("inf")
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="weir-deadlines", daemon=True)

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
        """Ask this queue too, from now on."""
        with self._condition:
            self._queues.append(queue)

    def forget(self, queue: Expiring) -> None:
        """Ask this queue no longer, if it was asked."""
        with self._condition:
            if queue in self._queues:
                self._queues.remove(queue)

    def expect(self, deadline_s: float) -> None:
        """A deadline was added somewhere; wake in time for it."""
        if deadline_s < self._wake_s:
            with self._condition:
                self._wake_s = min(self._wake_s, deadline_s)
                self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._stopped and self._wake_s > (now := self._clock()):
                    left_s = self._wake_s - now
                    self._condition.wait(min(left_s, threading.TIMEOUT_MAX))
                if self._stopped:
                    return
                # What arrives from here on lowers it again by itself.
                self._wake_s = float("inf")
                queues = list(self._queues)
            for queue in queues:
                try:
                    self.expect(queue.expire(self._clock()))
                except Exception:  # our bug: the other queues still count on this thread
                    logger.exception("deadlines of a queue lost")
