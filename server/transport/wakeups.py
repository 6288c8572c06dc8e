"""Wake-up coalescing between the I/O thread and the threads that run models.

A wake-up switches threads, and the woken thread competes with its waker for Python's lock. One per
request and one per answer cost more than the network of a small model. Therefore:

- Gathering: the I/O thread tells a scheduler of requests when it has read all calls that have
  arrived, at the latest after `MAX_GATHER_S`. A session cuts no batch before, unless it is full.
- Corking: the answers of a batch are laid down, and sent by one wake-up of the I/O thread.

A transport without an I/O thread of its own adopts none; then nothing is gathered or corked.
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

# A look that finds nothing costs more than it saves. After that many in a row, only every eighth
# chance to look is taken.
_FRUITLESS_LOOKS = 16
_LOOK_EVERY = 8

Operations = tuple[Any, ...]


class Wakeups:
    """Requests that the I/O thread gathers, and answers that it sends for other threads.

    Attributes:
        gathering: of the I/O thread alone: called once it has read what has arrived.
    """

    __slots__ = (
        "_answers",
        "_clock",
        "_corked",
        "_io_thread",
        "_is_waiting",
        "_since_s",
        "_skipped",
        "_worth",
        "gathering",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.gathering: list[Callable[[], None]] = []
        self._answers: deque[tuple[Any, Operations]] = deque()
        self._corked = threading.local()
        self._io_thread = 0
        self._since_s = 0.0
        self._worth = self._skipped = 0
        # Whether the I/O thread waits for an event, or is about to.
        self._is_waiting = False

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

    def may_look(self) -> bool:
        """On the I/O thread: whether to look for more events before batches are cut."""
        if not self._worth:
            # Looks that find nothing cost more than they save: then only every eighth is made.
            self._skipped = (self._skipped + 1) % _LOOK_EVERY
            if self._skipped:
                return False
        return self._clock() - self._since_s < MAX_GATHER_S

    def looked(self, *, has_found: bool) -> None:
        """Remember whether a look was worth it."""
        if has_found:
            self._worth = _FRUITLESS_LOOKS
        elif self._worth:
            self._worth -= 1

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
        # After that assignment: an answer laid down before it may have woken nobody.
        if self._answers:
            self._is_waiting = False
            return False
        return True

    def after_wait(self) -> None:
        """On the I/O thread, once it has an event."""
        self._is_waiting = False

    def start_answers(self) -> None:
        """Start all answers that were laid down."""
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
            return  # it looks for answers before it waits
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
