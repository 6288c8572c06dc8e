"""Supervision of threads: one that dies or no longer turns ends the process.

A server that lacks a thread looks alive and answers nothing. It therefore ends, and its supervisor
(Docker, Kubernetes, systemd) starts it again.

Thread: `weir-watchdog`, which looks at the watched threads a few times within its timeout.

Rules:
- Every thread of the server is a `SupervisedThread`. Its body may return; it must not raise.
- A watched thread is stuck if it has work and does not turn for the whole timeout.
- The last event of the log names the thread and the cause. The end waits for the log, for at most
  `_REPORT_S`.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, Protocol

logger = logging.getLogger(__name__)

THREAD_DIED = 70
"""Exit code of a process whose thread ended unexpectedly (EX_SOFTWARE of sysexits.h)."""
THREAD_STUCK = 71
"""Exit code of a process one of whose watched threads no longer turns."""
DEVICE_LOST = 72
"""Exit code of a process whose GPU takes no more work from it; see `runtime.session`."""

_REPORT_S = 5
_RESERVE_BYTES = 1024 * 1024
_NO_MEMORY = b"weir: a thread ended unexpectedly, and there is no memory to say which\n"
# grpcio's own thread of a `grpc.server`. Without it that server takes no more calls.
_GRPC_SERVER_THREAD = "(_serve)"
_LOOKS = 4
"""Looks of the watchdog within its timeout."""


class SupervisedThread(threading.Thread):
    """A daemon thread; the process ends if its body raises, whatever it raises.

    Attributes:
        reserve: freed before the report, as what ended the thread may be a lack of memory.
    """

    reserve = bytes(_RESERVE_BYTES)

    def run(self) -> None:
        """Run the body."""
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - SystemExit would end a thread silently
            _died(self.name, error)


def supervise_libraries() -> None:
    """End the process, too, if grpcio's thread of a `grpc.server` ends unexpectedly."""
    default = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread is not None and args.thread.name.endswith(_GRPC_SERVER_THREAD):
            _died(args.thread.name, args.exc_value)
        default(args)

    threading.excepthook = hook


class Watched(Protocol):
    """A thread that the watchdog watches."""

    @property
    def thread_name(self) -> str:
        """The name of the thread."""

    def turns(self) -> float | None:
        """A number that changes when the thread turns; None while it has nothing to do."""


class Watchdog:
    """Ends the process if a watched thread no longer turns.

    Time in which the whole process stood still does not count, as after SIGSTOP or in a virtual
    machine that was suspended: the watchdog then wakes late itself, and starts to count again.

    Args:
        changed: called when `is_healthy` changes.
    """

    thread_name = "weir-watchdog"

    def __init__(
        self,
        timeout_s: float,
        changed: Callable[[], None] = lambda: None,
        *,
        end: Callable[[int, logging.LogRecord], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s = timeout_s
        self._changed = changed
        self._end = end or end_process
        self._clock = clock
        self._watched: list[Watched] = []
        # The number of each thread at the last look, and for how many looks it is the same.
        self._turns: dict[str, tuple[float | None, int]] = {}
        self._stopped = threading.Event()
        self._thread = SupervisedThread(target=self._run, name=self.thread_name, daemon=True)
        self.is_healthy = True

    def watch(self, thread: Watched) -> None:
        """Watch a thread from now on."""
        self._watched.append(thread)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Watch nothing from now on."""
        self._stopped.set()
        if self._thread.is_alive():
            # A look may meet a lock that a stuck thread holds.
            self._thread.join(1.0)

    def look(self) -> None:
        """Look at each thread once; end the process if one is stuck."""
        is_healthy = True
        for thread in self._watched:
            name, turns = thread.thread_name, thread.turns()
            last, looks = self._turns.get(name, (None, 0))
            looks = looks + 1 if turns is not None and turns == last else 0
            self._turns[name] = turns, looks
            is_healthy = is_healthy and looks < _LOOKS // 2
            if looks >= _LOOKS:
                self._end(THREAD_STUCK, _stuck(name, self._timeout_s))
        if is_healthy is not self.is_healthy:
            self.is_healthy = is_healthy
            self._changed()

    def _run(self) -> None:
        interval_s = self._timeout_s / _LOOKS
        looked_s = self._clock()
        while not self._stopped.wait(interval_s):
            late_s, looked_s = self._clock() - looked_s - interval_s, self._clock()
            if late_s > interval_s:
                self._turns.clear()
            self.look()


def last_event(text: str, *values: object, error: BaseException | None = None) -> logging.LogRecord:
    """The event for `end_process`, with the traceback of an error."""
    cause = None if error is None else (type(error), error, error.__traceback__)
    return logger.makeRecord(logger.name, logging.CRITICAL, __file__, 0, text, values, cause)


def end_process(exit_code: int, record: logging.LogRecord) -> NoReturn:
    """Log a last event and end the process, whatever state it is in."""
    try:
        # The report may meet the fault that it is about, such as a lock that is never released.
        # Without a handler in Python, the signal needs neither this thread nor memory.
        if hasattr(signal, "alarm"):
            signal.alarm(_REPORT_S)
        logger.handle(record)
        logging.shutdown()
    finally:
        os._exit(exit_code)


def _died(name: str, error: BaseException | None) -> NoReturn:
    SupervisedThread.reserve = b""
    try:
        record = last_event(
            "thread ended unexpectedly thread=%s cause=%s exit_code=%d",
            name, type(error).__name__, THREAD_DIED, error=error,
        )  # fmt: skip
        end_process(THREAD_DIED, record)
    finally:
        # Reached only if there is no memory for the record.
        with suppress(OSError):
            os.write(2, _NO_MEMORY)
        os._exit(THREAD_DIED)


def _stuck(name: str, timeout_s: float) -> logging.LogRecord:
    """The event of a thread that is stuck, with the stacks of all threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    record = last_event(
        "thread stuck thread=%s timeout_s=%g exit_code=%d", name, timeout_s, THREAD_STUCK
    )
    record.stack_info = "\n".join(
        f"Thread {names.get(ident, ident)}:\n" + "".join(traceback.format_stack(frame)).rstrip()
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - the documented way
    )
    return record
