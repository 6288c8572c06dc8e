"""An end for streams that are opened and then say nothing.

A stream that brings one request waits for it as long as a request without a deadline may take; gRPC itself sets no bound
where the caller set none. `ModelStreamInfer` is not among these: its streams stay open for many requests, and may rest before
the first as between any two.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from weir.server.scheduling.deadlines import Deadlines
from weir.server.transport.base import Call


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    deadline_s: float
    late: Callable[[], None]


class Silence:
    """Streams that were opened and have not sent their message.

    Args:
        limit_s: how long it may take.
        deadlines: wakes when it is over.
        clock: monotonic seconds.
    """

    def __init__(
        self, limit_s: float, *, deadlines: Deadlines, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_s = limit_s
        self._deadlines = deadlines
        self._clock = clock
        self._lock = threading.Lock()
        # All may wait equally long, so the first is the next to be late.
        self._waiting: dict[_Waiting, None] = {}
        deadlines.watch(self)

    def receive(
        self, call: Call, received: Callable[[bytes | None], None], late: Callable[[], None]
    ) -> None:
        """Ask for the message of a stream; `late` ends it if none comes in time."""
        if call.time_left_s() is not None:  # gRPC ends it
            call.receive(received)
            return
        with self._lock:
            waiting = _Waiting(self._clock() + self.limit_s, late)
            self._waiting[waiting] = None

        def heard(payload: bytes | None) -> None:
            with self._lock:
                is_in_time = waiting in self._waiting
                self._waiting.pop(waiting, None)
            if is_in_time:
                received(payload)

        self._deadlines.expect(waiting.deadline_s)
        call.receive(heard)

    def expire(self, now: float) -> float:
        """End what said nothing in time; the earliest deadline left, or infinity."""
        with self._lock:
            ended = list(takewhile(lambda each: each.deadline_s <= now, self._waiting))
            for waiting in ended:
                del self._waiting[waiting]
            earliest = next(iter(self._waiting), None)
        for waiting in ended:
            waiting.late()
        return float("inf") if earliest is None else earliest.deadline_s
