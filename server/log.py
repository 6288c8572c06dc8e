"""Log lines for people or for machines: a fixed event text, then `key=value`.

Thread: `weir-log`, which writes. Whoever logs only makes the line, so that an unread pipe or a full disk holds up nobody;
lines that find no room are counted.
"""

import json
import logging
import os
import re
import sys
import time
import warnings

from weir.bundle.wording import printable
from weir.server.telemetry.background_queue import BackgroundQueue

_FIELD = re.compile(r"(\w+)=%")
REQUESTS = "weir.requests"
"""The logger of the request log, whose records carry `fields`; how much of it there is, its own setting says."""

_MOST_WAITING = 4096
_LAST_WORDS_S = 1.0
# Anything else is quoted: a caller chooses ids and names, and must not write fields of its own.
_WORD = re.compile(r"[\w./:%\[\]@+-]+")


class _Text(logging.Formatter):
    """One line an event, whatever its values hold; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's spelling
        line = super().formatMessage(record) + "".join(
            f" {name}={_value(value)}" for name, value in _brought(record).items()
        )
        return printable(line)


class _Json(logging.Formatter):
    """One object a line, with what follows `key=` as members of their own; a traceback is one string."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            **_named(record),
            **_brought(record),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        line = json.dumps(event, ensure_ascii=False)
        # Lone surrogates, from file names that are no UTF-8, become escapes of JSON.
        return line.encode("utf-8", "backslashreplace").decode()


def _brought(record: logging.LogRecord) -> dict[str, object]:
    """What an event has beside its text."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _named(record: logging.LogRecord) -> dict[str, object]:
    """The values of an event by the names that its text gives them."""
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


class _Lines(logging.Handler):
    """Writes to a file descriptor, in its own time."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._is_torn = False
        self._queue = BackgroundQueue(self._write, name="weir-log", limit=_MOST_WAITING)

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._queue.dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. While nobody reads, lines of requests leave room for those of rarer events."""
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - logging's own rule: a bad record is reported, not raised
            self.handleError(record)
            return
        is_left_out = record.name == REQUESTS and self._queue.is_half_full
        if is_left_out or not self._queue.put(line):
            self._queue.drop()

    def flush(self) -> None:
        """Wait until what was logged is written, but not for ever."""
        self._queue.drain(_LAST_WORDS_S)

    def _write(self, line: bytes) -> None:
        # After a line that broke off, on a disk that was full, the next begins on a line of its own.
        whole = rest = b"\n" + line if self._is_torn else line
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        finally:
            self._is_torn = bool(rest) and (self._is_torn or len(rest) < len(whole))


def dropped() -> int:
    """Lines of this process's log that were not written."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, _Lines))


def configure(log_format: str, level: str) -> None:
    """Send this process's log to stderr, as `text` or `json` lines."""
    # Where the process was started without one, its number may by now be some other file's.
    handler = logging.NullHandler() if sys.stderr is None else _Lines(sys.stderr.fileno())
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger(REQUESTS).setLevel(logging.INFO)
    # What Pillow warns of is in a client's picture, and may be as many different texts.
    warnings.filterwarnings("ignore", module=r"PIL\.")
