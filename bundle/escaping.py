"""What a stranger's file may put into a message.

Names and values are short_list in reasons, which end up in logs, in the server's index and on terminals.
"""

_MOST_CHARACTERS = 2000
_MOST_SHOWN = 80


def printable_message(message: str) -> str:
    """The message, printable and not too long; only its line ends stay as they are."""
    if len(message) > _MOST_CHARACTERS:
        message = message[:_MOST_CHARACTERS] + "…"
    return "\n".join(map(printable, message.split("\n")))


def printable(line: str) -> str:
    """The line, with escapes in place of what moves a cursor, ends a line or is no character at all."""
    if line.isprintable():
        return line
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in line
    )


def short_repr(value: object) -> str:
    """A value as Python writes it, so on one line and printable, and not too long."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def short_list(names: list[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
