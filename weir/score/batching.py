"""Batches: rows of similar lengths together, and a failed batch in halves. Pure."""

from collections.abc import Callable, Mapping, Sequence
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


def score_rows(
    positions: Sequence[int], failures: Failures, run: Run, batches: Sequence[slice] = ()
) -> Scores:
    """Score rows together; if that fails, in halves, so that a row that fails harms no other.

    Args:
        batches: that the rows are run in; if one fails, the others are run again as they were.

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
    halves = [slice(0, middle), slice(middle, len(positions))]
    parts = [
        score_rows(positions[rows], failures, partial(_from, run, rows.start))
        for rows in (batches if len(batches) > 1 else halves)
    ]
    scored = [each for each in parts if each.positions]
    if not scored and isinstance(first, failures.failed):
        raise first
    names = list(scored[0].columns) if scored else []
    return Scores(
        [position for each in scored for position in each.positions],
        {name: pa.concat_arrays([each.columns[name] for each in scored]) for name in names},
        {position: text for each in parts for position, text in each.errors.items()},
    )


def _from(run: Run, first: int, rows: slice) -> Mapping[str, pa.Array]:
    """The columns of rows that are counted from another one on."""
    return run(slice(first + rows.start, first + rows.stop))


def longest_first(lengths: NDArray[np.intp], *tie_breakers: NDArray[np.intp]) -> NDArray[np.intp]:
    """The order of rows for `cut_by_length`; rows of one length are sorted by the tie breakers.

    Long batches go first, so that no thread waits for one at the end of a part.
    """
    keys = [-each for each in reversed((lengths, *tie_breakers))]
    order: NDArray[np.intp] = np.lexsort(keys)
    return order


def cut_by_length(lengths: NDArray[np.intp], policy: BatchPolicy) -> list[slice]:
    """Batches of rows of similar lengths, of rows that are sorted, the longest first."""
    batches = []
    start = 0
    while start < len(lengths):
        size = rounded_up(max(1, int(lengths[start])))
        stop = start + 1
        while stop < len(lengths) and policy.fits(stop + 1 - start, size):
            stop += 1
        batches.append(slice(start, stop))
        start = stop
    return batches


def cut_evenly(rows: slice, batch_rows: int) -> list[slice]:
    """Batches of `batch_rows` rows, the last one smaller."""
    starts = range(rows.start, rows.stop, batch_rows)
    return [slice(start, min(start + batch_rows, rows.stop)) for start in starts]


def tasks_of(batches: Sequence[slice], most: int, threads: int) -> list[slice]:
    """Group batches into tasks, the rows that one thread takes at a time.

    A task has at most `most` batches, and fewer if there were less than two tasks a thread. It ends
    with a batch, so that no number of threads changes a batch.
    """
    step = min(most, max(1, len(batches) // (2 * threads)))
    return [
        slice(each[0].start, each[-1].stop)
        for each in (batches[at : at + step] for at in range(0, len(batches), step))
    ]
