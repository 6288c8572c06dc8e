"""Runs commands for the tests of the verbs."""

import io
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """The result of a command: exit code and both output streams."""

    code: int
    out: str
    err: str


class Weir(Protocol):
    """Runs `weir` with arguments, in this process."""

    def __call__(self, *arguments: object) -> Outcome: ...


def standard_input(content: bytes) -> io.TextIOWrapper:
    """A `sys.stdin` with these bytes, in a terminal with another encoding than UTF-8."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="ascii")
