"""The log: one line an event, as text or JSON; a fixed event text, then `key=value`.

Thread: `weir-log`, which writes. A thread that logs only formats the line, so an unread pipe or a
full disk delays no request. Lines that do not fit into the queue are dropped and counted.
"""

import json
import logging
import os
import re
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from weir.bundle.escaping import printable
from weir.server.threads import SupervisedThread

T = TypeVar("T")

_FIELD = re.compile(r"(\w+)=%")
REQUESTS = "weir.requests"
"""The logger of the access log; its records carry `fields`."""

_MAX_WAITING_LINES = 4096
_FLUSH_TIMEOUT_S = 1.0
# Any other value is quoted: clients choose ids and names, and must not write fields of their own.
_WORD = re.compile(r"[\w./:%\[\]@+-]+")


class _Text(logging.Formatter):
    """One line an event, whatever its values contain; a traceback follows on further lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's spelling
        line = super().formatMessage(record) + "".join(
            f" {name}={_value(value)}" for name, value in _fields(record).items()
        )
        return printable(line)


class _Json(logging.Formatter):
    """One JSON object a line; each `key=value` is a member, a traceback is one string."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            **_arguments(record),
            **_fields(record),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stacks"] = record.stack_info
        line = json.dumps(event, ensure_ascii=False)
        # Lone surrogates, from file names that are not UTF-8, become JSON escapes.
        return line.encode("utf-8", "backslashreplace").decode()


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of an access log record."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _arguments(record: logging.LogRecord) -> dict[str, object]:
    """The arguments of an event, by the names in its text."""
    names = _FIELD.findall(record.msg) if isinstance(record.msg, str) else []
    values = record.args if isinstance(record.args, tuple) else ()
    if len(names) != len(values):
        return {}
    return {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in zip(names, values, strict=True)
    }


def _value(value: object) -> str:
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class BackgroundQueue(Generic[T]):
    """A bounded queue in front of one thread, so that no other thread waits for a slow disk.

    The thread starts at once. An item that finds the queue full is dropped and counted.

    Args:
        take: processes an item on that thread; an item whose processing raises is dropped.
    """

    def __init__(self, take: Callable[[T], None], *, name: str, limit: int) -> None:
        self._take = take
        self._limit = limit
        self._waiting: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._lock = threading.Lock()
        self._dropped = 0
        self._thread = SupervisedThread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Number of dropped items."""
        with self._lock:
            return self._dropped

    @property
    def is_half_full(self) -> bool:
        """Whether the caller should keep back less important items."""
        return self._waiting.qsize() > self._limit // 2

    def put(self, item: T) -> bool:
        """Queue an item without waiting; False if the queue is full. The caller counts the drop."""
        # Threads that pass this check together overfill the queue by one item each. A lock would
        # cost more than those items.
        has_room = self._waiting.qsize() < self._limit
        if has_room:
            self._waiting.put(item)
        return has_room

    def drop(self) -> None:
        """Count a dropped item."""
        with self._lock:
            self._dropped += 1

    def drain(self, timeout_s: float) -> bool:
        """Wait until every queued item is processed; False after the timeout."""
        reached = threading.Event()
        self._waiting.put(reached)
        if threading.current_thread() is self._thread:
            # Only if its body has failed: no other thread processes the items.
            while not reached.is_set():
                self._process()
        return reached.wait(timeout_s)

    def _run(self) -> None:
        while True:
            self._process()

    def _process(self) -> None:
        item = self._waiting.get()
        if isinstance(item, threading.Event):
            item.set()
            return
        try:
            self._take(item)
        except Exception:  # noqa: BLE001 - writing a log line about it might fail too
            self.drop()


class _LineHandler(logging.Handler):
    """Writes lines to a file descriptor, on a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._is_torn = False
        self._queue = BackgroundQueue(self._write, name="weir-log", limit=_MAX_WAITING_LINES)

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._queue.dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line; lines of the access log may fill only half of the queue."""
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - logging's rule: a bad record is reported, not raised
            self.handleError(record)
            return
        is_dropped = record.name == REQUESTS and self._queue.is_half_full
        if is_dropped or not self._queue.put(line):
            self._queue.drop()

    @property
    def descriptor(self) -> int:
        """The descriptor that it writes to."""
        return self._descriptor

    def keep_descriptor(self) -> None:
        """Write to a descriptor of its own, whatever becomes of the present one."""
        self._descriptor = os.dup(self._descriptor)

    def flush(self) -> None:
        """Wait until all queued lines are written, for a bounded time."""
        self._queue.drain(_FLUSH_TIMEOUT_S)

    def _write(self, line: bytes) -> None:
        # If a full disk cut a line off, the next one begins on a new line.
        whole = rest = b"\n" + line if self._is_torn else line
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        finally:
            self._is_torn = bool(rest) and (self._is_torn or len(rest) < len(whole))


def dropped() -> int:
    """The number of log lines of this process that were not written."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, _LineHandler))


def descriptor() -> int | None:
    """The descriptor of this process's log; None before `configure`, or without one."""
    handlers = logging.getLogger().handlers
    return next((each.descriptor for each in handlers if isinstance(each, _LineHandler)), None)


def unblock_stderr() -> None:
    """Let libraries lose lines that a pipe of standard error cannot take; the log loses none.

    gRPC core writes a line for each failed TLS handshake, on a thread that serves connections. If
    the pipe is not read, each such line would hold one of these threads.
    """
    with suppress(OSError):
        if sys.stderr is None or not stat.S_ISFIFO(os.fstat(sys.stderr.fileno()).st_mode):
            return
        # Opened again, since O_NONBLOCK belongs to the open file, which other processes may share.
        # Only Linux has this path, and only for the user that opened the pipe.
        again = os.open(f"/proc/self/fd/{sys.stderr.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, _LineHandler):
                handler.keep_descriptor()
        os.dup2(again, sys.stderr.fileno())
        os.close(again)


def _is_not_of_a_header(record: logging.LogRecord) -> bool:
    return record.msg != "Invalid encoding on %s"


def configure(log_format: str, level: str) -> None:
    """Send this process's log to stderr, as `text` or `json` lines."""
    # If the process was started without stderr, its descriptor may belong to another file now.
    handler = logging.NullHandler() if sys.stderr is None else _LineHandler(sys.stderr.fileno())
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger(REQUESTS).setLevel(logging.INFO)
    # grpcio logs a traceback for each header that is no text, and goes on without it.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_a_header)
    # Pillow's warnings quote clients' pictures, so their number is unbounded.
    warnings.filterwarnings("ignore", module=r"PIL\.")
