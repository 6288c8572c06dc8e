"""Open calls of a transport: their number and the wait for their first message are bounded.

Rules:
- The time for a message runs from the headers on: the server's default deadline, or for a client
  that set a deadline of its own, the longest that a client may set. gRPC itself ends a call at its
  client's deadline, and a call without one never.
- A bidirectional stream may rest before its first message, as between two: no time runs for it.
- A new call beyond the bound takes the place of the oldest call that has waited for its message for
  `_PATIENCE_S`; if there is none, it is refused. So calls without a message keep no other call out.
- Probes are calls that operators depend on: they take the place of any call that waits for its
  message, and a few of them are open beyond the bound.
- A client that does not read its answer holds it in the server's memory. An ended call that is open
  for the default deadline longer is dropped.
- While the server stops, every new call is refused, and the calls that came before are waited for.

Threads: `weir-deadlines` calls `expire`, the main thread `refuse_new` and `wait_for_accepted`; a
transport's threads call the rest. A dictionary keeps the waiting calls in order of arrival, and
each of its operations is atomic.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from weir.server.errors import DeadlineExceeded, Draining, Overloaded
from weir.server.transport.base import Call, Limits
from weir.server.transport.status import STOPPING, fail

PROBES = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""The methods that operators and orchestrators ask whether a server lives."""

MORE_PROBES = 64
"""Probes that may be open beyond the bound."""

# A message that follows its headers arrives with them, or a round trip later.
_PATIENCE_S = 0.25
# Ending a call costs the I/O thread some 15 µs: 64 of them hold it for a millisecond.
_ENDED_AT_ONCE = 64
_PAUSE_S = 0.01
_MIN_PERIOD_S = 0.1


class OpenCall(Call, Protocol):
    """A call of a transport, with what this module asks of it."""

    @property
    def arrived_s(self) -> float:
        """When its headers arrived, by the monotonic clock."""

    @property
    def has_deadline(self) -> bool:
        """Whether the client set a deadline."""

    @property
    def may_rest(self) -> bool:
        """Whether its first message may come at any time: a bidirectional stream."""

    @property
    def has_ended(self) -> bool:
        """Whether its status was handed to core, which sends it when the client reads."""

    def drop(self) -> None:
        """Cancel an ended call, and free its answer."""


class OpenCalls:
    """The open calls of one transport.

    Attributes:
        calls: all of them.
        waiting: those whose first message has not come, the oldest first. A call that is refused
            waits no more.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = limits.open_calls
        self._default_s = limits.default_deadline_s
        self._longest_s = limits.max_deadline_s
        self._clock = clock
        self.calls: set[Any] = set()
        self.waiting: dict[OpenCall, None] = {}
        # Ended calls at the last look at all calls.
        self._unread: set[Any] = set()
        self._next_look_s = clock() + limits.default_deadline_s
        self._is_stopping = False
        self._accepted: set[Any] = set()
        self._accepted_closed = threading.Event()

    def add(self, call: OpenCall) -> None:
        """Add a call whose headers have arrived.

        Raises:
            Draining: the server stops.
            Overloaded: too many calls are open.
        """
        self.calls.add(call)
        self.waiting[call] = None
        if self._is_stopping:
            # A new one: an exception that was raised keeps the frames it passed, and so the call.
            raise Draining(*STOPPING.args)
        if len(self.calls) > self._most:
            self._make_room(call)

    def received(self, call: OpenCall) -> None:
        """The first message of a call has come, or none is expected: the call is refused."""
        self.waiting.pop(call, None)

    def discard(self, call: OpenCall) -> None:
        """A call is closed."""
        self.calls.discard(call)
        self.waiting.pop(call, None)
        self._unread.discard(call)
        if self._is_stopping:
            self._accepted.discard(call)
            if not self._accepted:
                self._accepted_closed.set()

    def refuse_new(self) -> None:
        """Refuse every call that is added from now on."""
        # In this order: a call that `add` has not refused is among the copied ones.
        self._is_stopping = True
        self._accepted = self.calls.copy()
        # A call that was closed before the assignment would stay.
        self._accepted &= self.calls
        if not self._accepted:
            self._accepted_closed.set()

    def wait_for_accepted(self, timeout_s: float) -> bool:
        """Wait until the calls that were open at `refuse_new` are closed; False at the timeout."""
        return self._accepted_closed.wait(timeout_s)

    def expire(self, now: float) -> float:
        """End the calls whose message is late; the time of the next look.

        A call that arrives later is late no earlier than the default deadline from now, so that
        looking again by then costs no call anything.
        """
        ended, earliest_s = 0, now + min(self._default_s, self._longest_s)
        for call in list(self.waiting):
            if call.may_rest:
                continue
            limit_s = self._longest_s if call.has_deadline else self._default_s
            deadline_s = call.arrived_s + limit_s
            if deadline_s > now:
                earliest_s = min(earliest_s, deadline_s)
                continue
            if ended == _ENDED_AT_ONCE:
                return now + _PAUSE_S
            late = DeadlineExceeded(f"expected one message, none came within {limit_s:g} s")
            ended += self._end_wait(call, late)
        if now >= self._next_look_s:
            self._next_look_s = now + self._default_s
            self._drop_unread()
        return max(earliest_s, now + _MIN_PERIOD_S)

    def refuse_waiting(self, error: Exception, methods: tuple[str, ...]) -> int:
        """Refuse the calls of some methods whose message has not come; returns how many."""
        waiting = [call for call in list(self.waiting) if call.method.startswith(methods)]
        return sum([self._end_wait(call, error) for call in waiting])

    def _end_wait(self, call: OpenCall, error: Exception) -> bool:
        """End a call that waits; False if its message came meanwhile, or it has ended."""
        try:
            del self.waiting[call]
        except KeyError:
            return False
        if call.has_ended:
            return False
        fail(call, error)
        return True

    def _drop_unread(self) -> None:
        """Drop the calls that had ended at the last look, and are still open."""
        before = self._unread
        self._unread = {call for call in self.calls.copy() if call.has_ended}
        for call in before & self._unread:
            call.drop()
        # A call that was closed before the assignment would stay until the next look.
        self._unread &= self.calls

    def _make_room(self, call: OpenCall) -> None:
        is_probe = call.method in PROBES
        while (oldest := self._oldest(call)) is not call:
            if not is_probe and oldest.arrived_s + _PATIENCE_S > self._clock():
                break
            if self._end_wait(oldest, self._overloaded("this one sent no message")):
                return
        if not (is_probe and len(self.calls) <= self._most + MORE_PROBES):
            # It ends now. In the place of a waiting call, it would let in another one for nothing.
            self.waiting.pop(call, None)
            raise self._overloaded("try again later")

    def _oldest(self, added: OpenCall) -> OpenCall:
        """The call that has waited longest; the one that was just added if no other waits."""
        while True:
            try:
                # Another thread may close the added call meanwhile.
                return next(iter(self.waiting), added)
            except RuntimeError:  # another thread changed the dictionary between the two steps
                continue

    def _overloaded(self, what: str) -> Overloaded:
        return Overloaded(f"{self._most} calls are open, the limit of the server: {what}")
