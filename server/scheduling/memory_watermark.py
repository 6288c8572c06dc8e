"""Memory watermark: refuses calls before the process reaches its limit of memory.

Thread: `weir-memory`, which samples the memory while a call is open, the more often the less is
left. Otherwise, and above the watermark, it samples once a second.

Rules:
- Above the watermark, new calls that carry tensors, texts or pictures are refused, before their
  message is received. They are accepted again when the memory is a little below it.
- Requests may take at least half of what the server leaves free at rest: the watermark rises with
  the memory of the models. At rest no call is open: the messages of one may count already.
- While no request is in flight, one call passes each `_PASS_S`: no refusal could free memory then.
  Here and below, only requests that the byte budget counts are in flight.
- If the memory still grows, the calls whose message has not arrived in full are refused too: their
  messages are where the memory goes.
- Freed memory that the C library keeps is returned to the system, at most once a second.
- What it cannot return counts as memory at rest: while no request is in flight and the memory has
  not grown between two such returns, the watermark rises. The server would otherwise refuse calls
  for memory that no refusal frees.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from weir.server.errors import Overloaded
from weir.server.runtime import heap
from weir.server.runtime.memory import MemoryLimit
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.telemetry.server_stats import MemoryState
from weir.server.threads import SupervisedThread
from weir.server.transport.base import Headers

logger = logging.getLogger(__name__)

# Of what is free above the watermark.
_HYSTERESIS = 0.5
_MIN_SHARE, _MAX_SHARE = 0.6, 0.9
_MESSAGES_ABOVE = 8
_PASS_S = 0.1
_TRIM_S = 1.0
_MAX_PAUSE_S, _MIN_PAUSE_S = 1.0, 0.01
# Measured: 40 clients of the same machine fill 3.5 GB/s, and a sample comes up to 30 ms late. A
# quarter of what is left is filled between two samples.
_BYTES_PER_S = 4e9
_SHARE_A_SAMPLE = 0.25


def default_share(limit_bytes: int, max_message_bytes: int) -> float:
    """The watermark: 90 %, or less in a small container, so that a few messages fit above it."""
    room = _MESSAGES_ABOVE * max_message_bytes / limit_bytes
    return max(_MIN_SHARE, min(_MAX_SHARE, 1 - room))


class MemoryWatermark:
    """Samples the memory and refuses calls.

    Args:
        limits: of this process; without any, nothing is refused.
        share: of a limit; from there on calls are refused, or from half of what is free at rest.
        methods: how the full names of the methods begin whose calls are refused.
        budget: of the requests of all models.
        is_busy: whether a call is open.
        shed: refuses the calls of these methods whose message is on its way; returns how many.
    """

    def __init__(
        self,
        limits: Sequence[MemoryLimit],
        share: float,
        *,
        methods: tuple[str, ...],
        budget: ByteBudget,
        is_busy: Callable[[], bool],
        shed: Callable[[Exception, tuple[str, ...]], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits if share < 1 else ()
        self._share = share
        self._watermarks = self._at_rest()
        self._methods = methods
        self._budget = budget
        self._is_busy = is_busy
        self._shed = shed
        self._clock = clock
        self._left_bytes = 0
        self._passed_s = self._trimmed_s = float("-inf")
        # What was used after the last return of freed memory above the watermark, by limit.
        self._trimmed: list[float] = []
        self._problem = ""
        self.is_high = False
        self.refused = 0
        self._is_asleep = False
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread = SupervisedThread(target=self._run, name="weir-memory", daemon=True)

    def start(self) -> None:
        """Start to sample, if there is a limit."""
        if self._limits:
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self, headers: Headers) -> None:
        """Refuse a call above the watermark; see `transport.base.Check`."""
        if self._is_asleep:
            self._wake.set()
        if self.is_high and headers.method.startswith(self._methods):
            self.check_message()

    def check_message(self) -> None:
        """Refuse a message of a stream above the watermark."""
        if not self.is_high:
            return
        now = self._clock()
        if not self._budget.held_bytes and now - self._passed_s >= _PASS_S:
            self._passed_s = now
            return
        self.refused += 1
        raise Overloaded(self._problem)

    def state(self) -> MemoryState:
        """Limit and refusals, for a scrape."""
        return MemoryState(
            limit_bytes=self._limits[0].limit_bytes if self._limits else None,
            is_high=self.is_high,
            refused={"watermark": self.refused, "bytes_in_flight": self._budget.refused},
        )

    def models_changed(self) -> None:
        """Take the memory of now for that of the server at rest, unless a call is open."""
        with suppress(OSError):  # the next sample says so
            self._rest()

    def sample(self) -> float:
        """Compare the memory with the limits; seconds until the next sample."""
        if self.is_high and self._clock() - self._trimmed_s >= _TRIM_S:
            self._trim()
        used = [limit.used_share() for limit in self._limits]
        share, watermark, limit = max(
            zip(used, self._watermarks, self._limits, strict=True),
            key=lambda each: each[0] - each[1],
        )
        self._problem = (
            f"the server uses {share:.0%} of its memory limit ({limit.source}), "
            f"the watermark is {watermark:.0%}"
        )
        if not self.is_high and share >= watermark:
            logger.warning(
                "memory watermark reached source=%s limit_bytes=%d used=%.3f watermark=%.3f "
                "in_flight_bytes=%d",
                limit.source, limit.limit_bytes, share, watermark, self._budget.held_bytes,
            )  # fmt: skip
            self.is_high = True
        elif self.is_high and share < watermark - _HYSTERESIS * (1 - watermark):
            logger.info("memory below the watermark source=%s used=%.3f", limit.source, share)
            self.is_high = False
            self._trimmed = []
        left_bytes = min(
            round((1 - part) * limit.limit_bytes)
            for part, limit in zip(used, self._limits, strict=True)
        )
        if self.is_high and left_bytes < self._left_bytes:
            self.refused += self._shed(Overloaded(self._problem), self._methods)
        self._left_bytes = left_bytes
        pause_s = _SHARE_A_SAMPLE * left_bytes / _BYTES_PER_S
        return min(max(pause_s, _MIN_PAUSE_S), _MAX_PAUSE_S)

    def _rest(self) -> None:
        watermarks = self._at_rest()
        # Checked after the sample: the message of a call that came meanwhile may count in it.
        if not self._is_busy():
            self._watermarks = watermarks

    def _at_rest(self) -> list[float]:
        """The watermarks of a server that uses at rest what it uses now."""
        return [max(self._share, (1 + limit.used_share()) / 2) for limit in self._limits]

    def _trim(self) -> None:
        self._trimmed_s = self._clock()
        heap.trim()
        before, self._trimmed = self._trimmed, [limit.used_share() for limit in self._limits]
        has_grown = any(now > then for now, then in zip(self._trimmed, before, strict=False))
        if before and not has_grown and not self._budget.held_bytes:
            self._watermarks = self._at_rest()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopped.wait(pause_s):
            try:
                if not self._is_busy() and not self.is_high:
                    self._wait_for_call()
                pause_s = self.sample()
                # Otherwise short: of grpc-server, a new call is checked before it counts as open.
                if self.is_high and not self._is_busy():
                    pause_s = max(pause_s, _TRIM_S)
            except OSError as error:
                logger.warning("memory is no longer watched reason=%s", error.strerror)
                self.is_high = False
                return

    def _wait_for_call(self) -> None:
        self._is_asleep = True
        # Checked after the assignment: a call that came before it did not wake this thread.
        while not self._is_busy():
            self._rest()
            if self._wake.wait(_MAX_PAUSE_S):
                break
        self._is_asleep = False
        self._wake.clear()
