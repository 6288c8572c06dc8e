"""Speed of a graph in INT8 beside the same graph in FP32, on one thread of this machine."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from weir.export import runtime

# Of the runs of a batch size, for both graphs together; a batch that takes longer has fewer rows.
_SECONDS = 0.2
_LEAST_RUNS = 3

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Speed:
    """Rows per second of both graphs, in batches of so many rows."""

    rows: int
    fp32: float
    int8: float

    def __str__(self) -> str:
        """A line for people."""
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'}"
        return f"FP32 {self.fp32:,.0f}, INT8 {self.int8:,.0f} rows/s, {rows} at a time, one thread"


def compare(
    fp32: bytes, int8: bytes, inputs: Inputs, outputs: Sequence[str], *, most_rows: int | None
) -> list[Speed]:
    """Measure both graphs with one row and with a full batch, in under a second.

    Args:
        inputs: a few rows; those of a batch are repetitions of them.
        most_rows: of a batch; None: the inputs run as they are, and count as a row.
    """
    sessions = [runtime.open_session(model, threads=1) for model in (fp32, int8)]
    if most_rows is None:
        times = _times_s(sessions, inputs, outputs)
        return [Speed(1, *(1 / each for each in times))]
    speeds: list[Speed] = []
    for size in (1, most_rows):
        slowest_s = 1 / min(speeds[0].fp32, speeds[0].int8) if speeds else 0.0
        rows = min(size, int(_SECONDS / 2 / _LEAST_RUNS / slowest_s)) if speeds else 1
        if speeds and rows <= 1:
            break
        batch = {name: array.take(range(rows), 0, mode="wrap") for name, array in inputs.items()}
        speeds.append(Speed(rows, *(rows / each for each in _times_s(sessions, batch, outputs))))
    return speeds


def warning(speeds: Sequence[Speed]) -> str:
    """The warning if INT8 is slower than FP32 at some batch size; empty if not."""
    slower = [str(each.rows) for each in speeds if each.int8 < each.fp32]
    if not slower:
        return ""
    return (
        "int8 is slower than fp32 on this machine, in batches of "
        f"{' and '.join(slower)}; by default the newest version answers"
    )


def _times_s(sessions: Sequence[Any], inputs: Inputs, outputs: Sequence[str]) -> list[float]:
    """The shortest run of each session; they take turns, so that other work slows both down."""
    best_s = [float("inf")] * len(sessions)
    for session in sessions:
        runtime.run(session, outputs, inputs)
    ends_s = time.perf_counter() + _SECONDS
    runs = 0
    while runs < _LEAST_RUNS or time.perf_counter() < ends_s:
        runs += 1
        for at, session in enumerate(sessions):
            started_s = time.perf_counter()
            runtime.run(session, outputs, inputs)
            best_s[at] = min(best_s[at], time.perf_counter() - started_s)
    return best_s
