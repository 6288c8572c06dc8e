"""Log lines for people or for machines: a fixed event text, then `key=value`."""

import json
import logging
import re
import sys
import time
import warnings

_FIELD = re.compile(r"(\w+)=%")


class _Text(logging.Formatter):
    """One line an event, whatever its values hold; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's spelling
        line = super().formatMessage(record)
        if line.isprintable():
            return line
        return "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in line
        )


class _Json(logging.Formatter):
    """One object a line, with what follows `key=` as members of their own; a traceback is one string."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            **_fields(record),
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


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The values of an event by the names that its text gives them."""
    names = _FIELD.findall(record.msg) if isinstance(record.msg, str) else []
    values = record.args if isinstance(record.args, tuple) else ()
    if len(names) != len(values):
        return {}
    return {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in zip(names, values, strict=True)
    }


def configure(log_format: str, level: str) -> None:
    """Send this process's log to stderr, as `text` or `json` lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What Pillow warns of is in a client's picture, and may be as many different texts.
    warnings.filterwarnings("ignore", module=r"PIL\.")
