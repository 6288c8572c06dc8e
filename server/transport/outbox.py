"""The way that answers of other threads take to gRPC core. See `completion_queue`."""

import logging
import threading
from collections import deque
from typing import Any

logger = logging.getLogger(__name__)

Operations = tuple[Any, ...]


def ignore(_event: Any) -> None:
    """Tag of operations whose end changes nothing."""


class Outbox:
    """Answers of other threads, handed to core by the I/O thread.

    Starting an operation lets go of Python's lock, so while one thread starts its answers and another
    polls, each answer costs two switches of threads. So only the first answer of a batch is started where
    it was made. With it goes an empty batch, which core ends at once: its event wakes the I/O thread, which
    starts the rest. (The end of the answer itself would not do: it comes when the peer has read it.)
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Any, Operations]] = deque()
        self._wakes = threading.Event()
        self._io_thread = 0

    def adopt_thread(self) -> None:
        """The calling thread is the I/O thread."""
        self._io_thread = threading.get_ident()

    def start(self, call: Any, operations: Operations) -> None:
        """Start a call's last operations, here or on the I/O thread."""
        if threading.get_ident() == self._io_thread:
            call.start_server_batch(operations, ignore)
        elif self._wakes.is_set():
            self._waiting.append((call, operations))
            if not self._wakes.is_set():
                # The I/O thread woke meanwhile, and may have found nothing.
                self._start_waiting()
        else:
            self._wakes.set()
            try:
                call.start_server_batch((), self._drain)
            except BaseException:
                # No event will come of it, and so nobody would wake for the answers after it.
                self._wakes.clear()
                raise
            call.start_server_batch(operations, ignore)

    def _drain(self, _event: Any) -> None:
        self._wakes.clear()
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting:
            try:
                call, operations = self._waiting.popleft()
            except IndexError:  # another thread took it
                return
            try:
                call.start_server_batch(operations, ignore)
            except Exception:
                logger.exception("answer lost")
