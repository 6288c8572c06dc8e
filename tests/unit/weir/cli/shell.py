"""How the tests of the verbs type a command."""

import io
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str


class Weir(Protocol):
    """Runs `weir` with arguments, in this process."""

    def __call__(self, *arguments: object) -> Outcome: ...


def standard_input(content: bytes) -> io.TextIOWrapper:
    """What `sys.stdin` is where these bytes stand on it, in a terminal of another encoding than UTF-8."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="ascii")
