"""Measurements of calls, and their summary. Pure: numbers in, numbers out.

Percentiles are nearest-rank over the successful calls: p99 is the latency of some call, and 99 % of
the calls had at most that. Failed calls are counted by status and are not part of percentiles.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
NOT_SENT = "NOT_SENT"
OVERLOAD = frozenset({"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", NOT_SENT})
"""Statuses that overload causes, which a load test may provoke on purpose."""


def _doubles() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class Tally:
    """The measured calls of one channel, one process or all of them.

    Attributes:
        ends_s: when each answered call ended, from the start of measuring.
        latencies_s: how long it took; in an open loop, from when it was due.
        lateness_s: open loop: sending time minus due time of each call.
        errors: failed calls by status.
        messages: of the first of them, by status.
    """

    ends_s: "array[float]" = field(default_factory=_doubles)
    latencies_s: "array[float]" = field(default_factory=_doubles)
    lateness_s: "array[float]" = field(default_factory=_doubles)
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a load.

    Attributes:
        late: answered after the time that `calls_per_s` refers to.
        messages: of one failed call of each status.
        elapsed_s: the time that `calls_per_s` and `rows_per_s` refer to.
        latency_s: by name: `mean`, `p50` … `p99.9`, `max`; empty without a successful call.
        lateness_p99_s: open loop: lateness of the generator itself; None for a closed loop.
    """

    answered: int
    late: int
    errors: dict[str, int]
    messages: dict[str, str]
    elapsed_s: float
    calls_per_s: float
    rows_per_s: float
    latency_s: dict[str, float]
    lateness_p99_s: float | None

    @property
    def failures(self) -> dict[str, int]:
        """Calls that failed for another reason than overload, by status."""
        return {status: count for status, count in self.errors.items() if status not in OVERLOAD}


def merge(tallies: Iterable[Tally]) -> Tally:
    """The sum of several tallies."""
    whole = Tally()
    for tally in tallies:
        whole.ends_s.extend(tally.ends_s)
        whole.latencies_s.extend(tally.latencies_s)
        whole.lateness_s.extend(tally.lateness_s)
        whole.errors.update(tally.errors)
        whole.messages |= tally.messages
    return whole


def summarise(tally: Tally, *, duration_s: float | None, rows: int) -> Summary:
    """Throughput and latency of a load.

    Calls were started for `duration_s`; later answers count for latency, not throughput. None means
    a fixed number of calls: then the last answer ends the time.
    """
    ends_s = np.asarray(tally.ends_s)
    elapsed_s = duration_s or float(ends_s.max(initial=0.0))
    in_time = int(np.count_nonzero(ends_s <= elapsed_s))
    calls_per_s = in_time / elapsed_s if elapsed_s else 0.0
    return Summary(
        answered=len(ends_s),
        late=len(ends_s) - in_time,
        errors=dict(tally.errors),
        messages=tally.messages,
        elapsed_s=elapsed_s,
        calls_per_s=calls_per_s,
        rows_per_s=calls_per_s * rows,
        latency_s=latency(tally.latencies_s),
        lateness_p99_s=percentile(tally.lateness_s, 99.0) if tally.lateness_s else None,
    )


def latency(latencies_s: Sequence[float]) -> dict[str, float]:
    """Mean, percentiles and maximum by name; empty without values."""
    if not len(latencies_s):
        return {}
    named = {f"p{rank:g}": percentile(latencies_s, rank) for rank in PERCENTILES}
    return {"mean": float(np.mean(latencies_s)), **named, "max": float(np.max(latencies_s))}


def percentile(values: Sequence[float], rank: float) -> float:
    """The smallest value that is at least as large as `rank` percent of the values."""
    # Rounded, because 99.9 % of 1000 is 999.0000000000001 in floating point.
    position = math.ceil(round(rank * len(values) / 100, 6)) - 1
    return float(np.partition(np.asarray(values), position)[position])
