"""Escaping and truncation of untrusted text in messages.

Error messages contain names and values of files. They reach logs, the server's index and terminals.
"""

from collections.abc import Sequence

_MOST_CHARACTERS = 2000
_MOST_SHOWN = 80


def printable_message(message: str) -> str:
    """Escape a message except its line ends, and truncate it to 2000 characters."""
    if len(message) > _MOST_CHARACTERS:
        message = message[:_MOST_CHARACTERS] + "…"
    return "\n".join(map(printable, message.split("\n")))


def printable(line: str) -> str:
    """Escape control characters, line ends and other unprintable characters of a line."""
    if line.isprintable():
        return line
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in line
    )


def short_repr(value: object) -> str:
    """The `repr` of a value, which is printable and on one line, truncated to 80 characters."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def short_list(names: Sequence[str]) -> str:
    """The first five names, and the number of the others."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
