"""What was measured, and what it comes to. Pure: numbers in, numbers out.

Percentiles are nearest-rank over the calls that were answered: p99 is a latency that some call had,
and 99 % had no more. Calls that failed are counted by status and have no part in them.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
NOT_SENT = "NOT_SENT"
OF_LOAD = frozenset({"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", NOT_SENT})
"""What becomes of calls where there are too many: to see that is what a load is made for."""


def _doubles() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class Tally:
    """The measured calls of one channel, one process or all of them.

    Attributes:
        ends_s: when each answered call ended, from the start of measuring.
        latencies_s: how long it took; in an open loop, from when it was due.
        lateness_s: open loop: how much later than due each call was sent.
        errors: failed calls by status.
    """

    ends_s: "array[float]" = field(default_factory=_doubles)
    latencies_s: "array[float]" = field(default_factory=_doubles)
    lateness_s: "array[float]" = field(default_factory=_doubles)
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a load came to.

    Attributes:
        answered: calls that were answered.
        errors: failed calls by status.
        elapsed_s: the time that `calls_per_s` counts over.
        calls_per_s: answers within that time, a second.
        rows_per_s: the same in rows.
        latency_s: by name: `mean`, `p50` … `p99.9`, `max`; empty if nothing was answered.
        lateness_p99_s: open loop: how late the generator itself was; None for a closed loop.
    """

    answered: int
    errors: dict[str, int]
    elapsed_s: float
    calls_per_s: float
    rows_per_s: float
    latency_s: dict[str, float]
    lateness_p99_s: float | None

    @property
    def failures(self) -> dict[str, int]:
        """Calls that failed for another reason than the load, as where the server went away."""
        return {status: count for status, count in self.errors.items() if status not in OF_LOAD}


def merge(tallies: Iterable[Tally]) -> Tally:
    """Several tallies as one."""
    whole = Tally()
    for tally in tallies:
        whole.ends_s.extend(tally.ends_s)
        whole.latencies_s.extend(tally.latencies_s)
        whole.lateness_s.extend(tally.lateness_s)
        whole.errors.update(tally.errors)
    return whole


def summarise(tally: Tally, *, duration_s: float | None, rows: int) -> Summary:
    """Throughput and latency of a load.

    Args:
        tally: everything that was measured.
        duration_s: how long calls were started; answers after that count as latency but not as
            throughput. None for a fixed number of calls: then the last answer ends the time.
        rows: rows a request.
    """
    ends_s = np.asarray(tally.ends_s)
    elapsed_s = duration_s or float(ends_s.max(initial=0.0))
    in_time = int(np.count_nonzero(ends_s <= elapsed_s))
    calls_per_s = in_time / elapsed_s if elapsed_s else 0.0
    return Summary(
        answered=len(ends_s),
        errors=dict(tally.errors),
        elapsed_s=elapsed_s,
        calls_per_s=calls_per_s,
        rows_per_s=calls_per_s * rows,
        latency_s=latency(tally.latencies_s),
        lateness_p99_s=percentile(tally.lateness_s, 99.0) if tally.lateness_s else None,
    )


def latency(latencies_s: Sequence[float]) -> dict[str, float]:
    """Mean, percentiles and maximum by name; empty if there is nothing to measure."""
    if not len(latencies_s):
        return {}
    named = {f"p{rank:g}": percentile(latencies_s, rank) for rank in PERCENTILES}
    return {"mean": float(np.mean(latencies_s)), **named, "max": float(np.max(latencies_s))}


def percentile(values: Sequence[float], rank: float) -> float:
    """The smallest value that at least `rank` percent of the values do not exceed."""
    # Rounded, because 99.9 % of 1000 is 999.0000000000001 to a computer.
    position = math.ceil(round(rank * len(values) / 100, 6)) - 1
    return float(np.partition(np.asarray(values), position)[position])
