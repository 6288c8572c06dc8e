"""How the tests of the verbs type a command."""

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
