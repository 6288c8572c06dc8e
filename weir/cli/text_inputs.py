"""Texts from arguments and standard input."""

import sys
from collections.abc import Sequence

from weir.client.errors import UsageError


def read_texts(arguments: Sequence[str]) -> list[str]:
    """The texts of the arguments; `-` stands for the lines of standard input but blank ones.

    Raises:
        UsageError: there is no text, or one is not UTF-8.
    """
    texts: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = read_standard_input().split("\n")
            texts += [line.removesuffix("\r") for line in lines if line.strip()]
        else:
            texts.append(_require_utf8(argument))
    if not texts:
        raise UsageError("expected a text, got none on standard input")
    return texts


def read_standard_input() -> str:
    """Standard input as UTF-8, whatever the terminal's encoding; UsageError if it is not UTF-8."""
    return decode_utf8(sys.stdin.buffer.read(), "standard input")


def decode_utf8(content: bytes, source: str) -> str:
    """A text from its bytes, without a byte order mark; UsageError names the first bad line."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{source}, line {line}: expected UTF-8, got other bytes") from error


def _require_utf8(argument: str) -> str:
    """The same argument; Python passes bytes that are not UTF-8 as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"expected texts in UTF-8, got {argument!r}") from error
    return argument
