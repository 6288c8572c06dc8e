"""Batches: rows of similar lengths together, and a failed batch in halves. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from weir.score.rows import Scores
from weir.server.runtime.collate import rounded_up
from weir.server.scheduling.batching import BatchPolicy

Run = Callable[[slice], Mapping[str, pa.Array]]
"""The columns of some of a batch's rows."""


@dataclass(frozen=True, slots=True)
class Failures:
    """What a batch's run may raise.

    Attributes:
        refused: for rows that cannot be scored.
        failed: for a reason that may be the rows' or not.
    """

    refused: tuple[type[Exception], ...]
    failed: tuple[type[Exception], ...] = ()


def score_rows(positions: Sequence[int], failures: Failures, run: Run) -> Scores:
    """Score rows together; if that fails, in halves, so that a row that fails harms no other.

    Raises:
        Exception: of `failures.failed`, if it is that of every one of several rows.
    """
    try:
        return Scores(positions, run(slice(0, len(positions))))
    except (*failures.refused, *failures.failed) as error:
        if len(positions) == 1:
            return Scores([], {}, {positions[0]: str(error)})
        first = error
    middle = len(positions) // 2
    halves = [
        score_rows(positions[:middle], failures, run),
        score_rows(positions[middle:], failures, partial(_from, run, middle)),
    ]
    scored = [each for each in halves if each.positions]
    if not scored and isinstance(first, failures.failed):
        raise first
    names = list(scored[0].columns) if scored else []
    return Scores(
        [position for each in scored for position in each.positions],
        {name: pa.concat_arrays([each.columns[name] for each in scored]) for name in names},
        {position: text for each in halves for position, text in each.errors.items()},
    )


def _from(run: Run, first: int, rows: slice) -> Mapping[str, pa.Array]:
    """The columns of rows that are counted from another one on."""
    return run(slice(first + rows.start, first + rows.stop))


def longest_first(lengths: NDArray[np.intp], *others: NDArray[np.intp]) -> NDArray[np.intp]:
    """The order of rows for `cut_by_length`; rows of one length are sorted by other lengths.

    The batches that take longest are not the last ones, which fewer threads score.
    """
    order: NDArray[np.intp] = np.lexsort([-each for each in reversed((lengths, *others))])
    return order


def cut_by_length(lengths: NDArray[np.intp], policy: BatchPolicy) -> Iterator[slice]:
    """Batches of rows of similar lengths, of rows that are sorted, the longest first."""
    start = 0
    while start < len(lengths):
        size = rounded_up(max(1, int(lengths[start])))
        stop = min(start + policy.rows_of(size), len(lengths))
        yield slice(start, stop)
        start = stop


def tasks_of(batches: Sequence[slice], most: int, threads: int) -> list[slice]:
    """The rows of tasks, each of up to `most` batches, but two tasks for each thread.

    A task begins and ends with a batch, so that no number of threads changes a batch.
    """
    step = min(most, max(1, len(batches) // (2 * threads)))
    return [
        slice(each[0].start, each[-1].stop)
        for each in (batches[at : at + step] for at in range(0, len(batches), step))
    ]


def cut_evenly(rows: slice, batch_rows: int) -> list[slice]:
    """Batches of `batch_rows` rows, the last one smaller."""
    starts = range(rows.start, rows.stop, batch_rows)
    return [slice(start, min(start + batch_rows, rows.stop)) for start in starts]
