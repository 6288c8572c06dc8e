"""Findings of the fuzzing: each is shown with the line that replays it, and its input is saved."""

import hashlib
import re
import sys
import time
from pathlib import Path

_MOST_OF_A_PART = 20
_SHOWN_S = 10.0


class Fault(Exception):
    """The server did what it must not do."""


class Findings:
    """Saves the first input of each kind of fault, and shows the progress of a part.

    Args:
        folder: for the inputs; made if there is a finding.
        shown_s: seconds between two lines of progress.
    """

    def __init__(self, folder: Path, part: str, seed: int, shown_s: float = _SHOWN_S) -> None:
        self.files: list[Path] = []
        self.executions = 0
        self._folder, self._part, self._seed = folder, part, seed
        self._kinds: dict[str, int] = {}
        self._shown_s = shown_s
        self._began_s = self._last_s = time.monotonic()

    def add(self, fault: Fault, data: bytes) -> None:
        """Save the input of a fault, unless a smaller one of its kind was saved before.

        Faults of one kind differ in numbers and quoted texts only.
        """
        kind = re.sub(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|\d+", "_", str(fault))[:200]
        known = self._kinds.get(kind)
        if (known is None and len(self._kinds) >= _MOST_OF_A_PART) or (
            known is not None and known <= len(data)
        ):
            return
        self._kinds[kind] = len(data)
        name = f"{self._part}-{self._seed}-{hashlib.sha256(kind.encode()).hexdigest()[:10]}"
        path = self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if known is None:
            self.files.append(path)
            say(f"FOUND {self._part}: {fault}")
            say(f"  make fuzz PART={self._part} SEED={self._seed} REPLAY={path}")

    def ran(self, count: int = 1, more: str = "") -> None:
        """Count executions, and show them now and then."""
        self.executions += count
        now = time.monotonic()
        if now >= self._last_s + self._shown_s:
            self._last_s = now
            say(self.line(more))

    def line(self, more: str = "") -> str:
        """The state of the part in a line."""
        spent_s = time.monotonic() - self._began_s
        rate = self.executions / max(spent_s, 1e-3)
        return (
            f"{self._part}: {spent_s:.0f} s, {self.executions} executions, {rate:.0f}/s, "
            f"{len(self.files)} findings{more}"
        )


def say(line: str) -> None:
    """Show a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
