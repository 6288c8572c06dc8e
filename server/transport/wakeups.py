"""Wake-up coalescing between the I/O thread and the threads that run models.

A wake-up switches threads, and the woken thread competes with its waker for Python's lock. One per
request and one per answer cost more than the network of a small model. Therefore:

- Gathering: the I/O thread tells a scheduler of requests when it has read all calls that have
  arrived, at the latest after `MAX_GATHER_S`. A session cuts no batch before, unless it is full.
- Corking: the answers of a batch are queued, and sent by one wake-up of the I/O thread.

Without an I/O thread (`adopt_thread` is never called) nothing is gathered. Only the transport
completion-queue has one, and only its answers pass through here.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

MAX_GATHER_S = 0.002
"""The longest that requests wait for others that have arrived; it ends when none is left."""

# A poll that finds no event costs more than it saves. After so many of these in a row, only every
# eighth poll is made, until one finds an event again.
_EMPTY_POLLS = 16
_POLL_EVERY = 8

Operations = tuple[Any, ...]
"""Operations that gRPC core starts together on one call."""


class Wakeups:
    """Requests that the I/O thread gathers, and answers that it sends for other threads.

    Attributes:
        gathering: functions that the I/O thread calls once it has read what has arrived; only that
            thread uses the list.
    """

    __slots__ = (
        "_answers",
        "_clock",
        "_corked",
        "_io_thread",
        "_is_waiting",
        "_polls_left",
        "_since_s",
        "_skipped_polls",
        "gathering",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.gathering: list[Callable[[], None]] = []
        self._answers: deque[tuple[Any, Operations]] = deque()
        self._corked = threading.local()
        self._io_thread = 0
        self._since_s = 0.0
        # Empty polls that may follow before polls become rare, and chances to poll skipped since.
        self._polls_left = self._skipped_polls = 0
        # Whether the I/O thread waits for an event, or is about to.
        self._is_waiting = False

    @property
    def is_waiting(self) -> bool:
        """Whether the I/O thread waits for an event, and no other thread has woken it."""
        return self._is_waiting

    def adopt_thread(self) -> None:
        """Make the calling thread the I/O thread."""
        self._io_thread = threading.get_ident()

    def gather(self, gathered: Callable[[], None]) -> bool:
        """On the I/O thread: call `gathered` once it has read what has arrived. False elsewhere."""
        if threading.get_ident() != self._io_thread:
            return False
        if not self.gathering:
            self._since_s = self._clock()
        self.gathering.append(gathered)
        return True

    def should_poll(self) -> bool:
        """On the I/O thread: whether to poll for more events before batches are cut."""
        if not self._polls_left:
            self._skipped_polls = (self._skipped_polls + 1) % _POLL_EVERY
            if self._skipped_polls:
                return False
        return self._clock() - self._since_s < MAX_GATHER_S

    def polled(self, *, has_found: bool) -> None:
        """On the I/O thread: count a poll that found an event, or none."""
        if has_found:
            self._polls_left = _EMPTY_POLLS
        elif self._polls_left:
            self._polls_left -= 1

    def end_gathering(self) -> None:
        """On the I/O thread: let batches be cut."""
        gathering, self.gathering = self.gathering, []
        for gathered in gathering:
            try:
                gathered()
            except Exception:  # our bug, in one model; the thread serves all models
                logger.exception("gathering not ended")

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Hold the answers that this thread makes, and send them together at the end."""
        self._corked.is_on = True
        try:
            yield
        finally:
            self._corked.is_on = False
            if self._answers:
                self._wake()

    def start(self, call: Any, operations: Operations) -> None:
        """Start a call's last operations, here or on the I/O thread.

        Starting an operation releases Python's lock, so each one that another thread starts may
        cost two switches of threads.
        """
        if threading.get_ident() == self._io_thread:
            call.start_server_batch(operations, ignore)
            return
        self._answers.append((call, operations))
        if not getattr(self._corked, "is_on", False):
            self._wake()

    def before_wait(self) -> bool:
        """On the I/O thread, before it waits: False if there are answers to start first."""
        self._is_waiting = True
        # Checked after the assignment: an answer queued before it did not wake this thread.
        if self._answers:
            self._is_waiting = False
            return False
        return True

    def after_wait(self) -> None:
        """On the I/O thread, once it has an event."""
        self._is_waiting = False

    def start_answers(self) -> None:
        """Start all queued answers."""
        answers = self._answers
        while answers:
            try:
                call, operations = answers.popleft()
            except IndexError:  # another thread took it
                return
            try:
                call.start_server_batch(operations, ignore)
            except Exception:
                logger.exception("answer lost")

    def _wake(self) -> None:
        """Have the answers started, by the I/O thread unless there is only one."""
        if not self._is_waiting:
            return  # the I/O thread starts all queued answers before it waits
        try:
            call, _ = self._answers[-1]
        except IndexError:
            return
        if len(self._answers) == 1:
            self.start_answers()
            return
        self._is_waiting = False
        try:
            # Core ends an empty operation batch at once. (The event of the answer itself comes too
            # late: when the peer has read it.)
            call.start_server_batch((), ignore)
        except Exception:  # noqa: BLE001 - no event follows, so nothing wakes the I/O thread
            self._is_waiting = True
            self.start_answers()


def ignore(_event: Any) -> None:
    """Tag of operations whose end changes nothing."""
