"""The ledger of the clients: what each has sent, and how each attempt ended.

Rules:
- A client writes a SENT record before it sends an attempt, and an ENDED record when it has ended.
- Each record is one `write` to a file in append mode: a client that is killed loses none of them.
- An attempt has a code, which is its id on the wire: client, incarnation, sequence and number of
  the attempt. A retry has the same sequence and the next number.
"""

import os
import struct
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_RECORD = struct.Struct("<QddfHBBBBBB")
DTYPE = np.dtype(
    [
        ("code", "<u8"),
        ("intended_s", "<f8"),
        ("at_s", "<f8"),
        ("deadline_s", "<f4"),
        ("version", "<u2"),
        ("kind", "u1"),
        ("model", "u1"),
        ("plan", "u1"),
        ("status", "u1"),
        ("verdict", "u1"),
        ("case", "u1"),
    ]
)
"""A record. `at_s` and `intended_s` are on the system's monotonic clock, which processes share.

`deadline_s` is the time from sending to the deadline; `case` is the number of a bad request.
"""

SENT, ENDED = 0, 1
_ATTEMPT_BITS, _SEQUENCE_BITS, _INCARNATION_BITS = 8, 36, 12


class Plan(IntEnum):
    """What a client means to do with an attempt."""

    GOOD = 0
    CANCEL = 1
    TIGHT = 2  # a deadline of a few milliseconds
    EXPIRED = 3  # a deadline that has passed
    BAD = 4
    QUEUED = 5  # a deadline that passes in the queue
    BURST = 6  # a part of an overload


class Verdict(IntEnum):
    """What a client found in an answer."""

    UNCHECKED = 0
    RIGHT = 1
    WRONG = 2
    DUPLICATE = 3
    LOST = 4


def code_of(client: int, incarnation: int, sequence: int, attempt: int) -> int:
    """The code of an attempt."""
    code = client
    for bits, value in (
        (_INCARNATION_BITS, incarnation),
        (_SEQUENCE_BITS, sequence),
        (_ATTEMPT_BITS, attempt),
    ):
        code = code << bits | value
    return code


def request_of(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The codes without their attempts: equal for all attempts of a request."""
    return codes >> np.uint64(_ATTEMPT_BITS)


def incarnation_of(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Client and incarnation: equal for all attempts of a process."""
    return codes >> np.uint64(_ATTEMPT_BITS + _SEQUENCE_BITS)


def wire_id(code: int) -> str:
    """The id of an attempt in its request."""
    return f"soak-{code:x}"


def code_on_the_wire(request_id: str) -> int | None:
    """The code of an id; None if no client of the soak made it."""
    prefix, _, digits = request_id.partition("-")
    try:
        return int(digits, 16) if prefix == "soak" else None
    except ValueError:
        return None


class Ledger:
    """Appends records; used by several threads."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def sent(
        self,
        code: int,
        *,
        model: int,
        plan: Plan,
        case: int,
        intended_s: float,
        at_s: float,
        deadline_s: float,
    ) -> None:
        """Record an attempt; before it is sent."""
        record = _RECORD.pack(code, intended_s, at_s, deadline_s, 0, SENT, model, plan, 0, 0, case)
        os.write(self._descriptor, record)

    def ended(
        self, code: int, *, at_s: float, status: int, verdict: Verdict, version: int = 0
    ) -> None:
        """Record the end of an attempt."""
        record = _RECORD.pack(code, 0.0, at_s, 0.0, version, ENDED, 0, 0, status, verdict, 0)
        os.write(self._descriptor, record)


def read(paths: Iterable[Path]) -> NDArray[np.void]:
    """Every record of several files, in any order."""
    parts = [np.zeros(0, DTYPE)]
    for path in paths:
        data = path.read_bytes()
        whole = len(data) - len(data) % DTYPE.itemsize
        parts.append(np.frombuffer(data[:whole], DTYPE))
    return np.concatenate(parts)


def count(paths: Iterable[Path]) -> int:
    """How many records the files have."""
    return sum(path.stat().st_size for path in paths) // DTYPE.itemsize
