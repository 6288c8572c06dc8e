"""Large messages: unpacked one after the other on a thread of their own.

Thread: `weir-unpack`. Unpacking megabytes takes milliseconds, which the I/O thread must not spend.
What waits here is bounded in bytes, and its deadline runs on; what is late, or no longer waited for,
is not unpacked at all.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from weir.server.errors import Overloaded

logger = logging.getLogger(__name__)

SMALL_BYTES = 256 * 1024
"""Up to this size a message is unpacked where it arrives."""


class Arrival(Protocol):
    """A message that arrived."""

    @property
    def payload(self) -> bytes:
        """The message."""


A = TypeVar("A", bound=Arrival)


class Unpacker(Generic[A]):
    """Gives each arrival to `unpack`, now or in turn.

    Args:
        unpack: must not raise.
        max_waiting_bytes: of large messages that wait.
    """

    def __init__(self, unpack: Callable[[A], None], *, max_waiting_bytes: int) -> None:
        self._unpack = unpack
        self._max_waiting_bytes = max_waiting_bytes
        self._condition = threading.Condition()
        self._waiting: deque[A] = deque()
        self._waiting_bytes = 0
        self._thread = threading.Thread(target=self._run, name="weir-unpack", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def accept(self, arrival: A) -> None:
        """Unpack a small message here, a large one in its turn.

        Raises:
            Overloaded: too many bytes wait already.
        """
        size = len(arrival.payload)
        if size <= SMALL_BYTES:
            self._unpack(arrival)
            return
        with self._condition:
            if self._waiting and self._waiting_bytes + size > self._max_waiting_bytes:
                raise Overloaded(
                    f"{self._waiting_bytes} bytes of large messages wait to be unpacked, "
                    f"the limit is {self._max_waiting_bytes}"
                )
            self._waiting.append(arrival)
            self._waiting_bytes += size
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting:
                    self._condition.wait()
                arrival = self._waiting.popleft()
                self._waiting_bytes -= len(arrival.payload)
            try:
                self._unpack(arrival)
            except Exception:  # our bug: that message is lost, the thread must not be
                logger.exception("message lost")
            del arrival
