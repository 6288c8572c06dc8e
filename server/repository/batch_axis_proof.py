"""Batch axis proof: rows of a batch do not depend on each other.

    form     no shape in the graph depends on the values of its inputs, and no operator reduces them
             along the batch axis (`data_dependent_shapes`)
    run      rows of different content, and a row of zeros: one row gives one row, several rows give
             as many, and each equals its result alone, also in the largest batch; its result has
             the same bits whatever the other rows hold, NaN and large numbers included; rows of
             few entries that are refused alone are refused together

A run alone proves nothing about other values, and the form alone nothing about rows that are mixed.
If a `config.pbtxt` names a batch axis, shapes inside the graph may depend on values, but no output
may have such a shape, and the run is still needed.

A tolerance hides a small influence of one row on another. Bits do not: batches of equal shape are
computed alike, so a row at its place changes only if another row reaches it. NaN shows through
every sum and product, and a large number in every comparison with a threshold.

The proof runs 100 to 300 rows, and the largest batch. If a row takes longer than 0.05 s, it runs
about 40: one pair of rows has one neighbour of usual values and two of extreme ones, and rows
of few entries have one size.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle import data_dependent_shapes
from weir.bundle.escaping import short_list, short_repr
from weir.server.errors import OutOfMemory, ServerError
from weir.server.repository import generated_rows
from weir.server.repository.generated_rows import Row
from weir.server.runtime import collate
from weir.server.runtime.session import RunStop, Session
from weir.server.runtime.signature import TensorSpec
from weir.server.scheduling.batching import Basis

Array = NDArray[Any]

Tried = tuple[Row, Mapping[str, Array]]
"""A row that the graph takes, and its outputs alone."""

# Limit of the inputs of a batch: a graph may name any size.
_MAX_BATCH_BYTES = 1 << 28
# Limits of time.
_MAX_ROW_S, _MAX_BATCH_S = 0.5, 5.0
# Of one run of generated inputs for a profile: a loop of a graph may never end.
_MAX_RUN_S = 60.0
# Of rows that take longer, fewer are run.
_SLOW_ROW_S = 0.05
# Relative to the greatest value of a row and output: a batch is summed in another order than a row
# alone. Without a tolerance, values must be equal.
_TOLERANCES = {"FP64": 1e-6, "FP32": 1e-3, "FP16": 2e-2, "BF16": 5e-2}


class UnprovedError(Exception):
    """The axis is not proved to be the batch axis; the message says why."""

    def __init__(self, basis: Basis, reason: str) -> None:
        super().__init__(reason)
        self.basis = basis


def prove(
    graph: bytes,
    session: Session,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    is_configured: bool,
    max_rows: int,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Prove that the first axis of all tensors is the batch axis.

    Args:
        inputs: with the sizes that requests must have.
        is_configured: whether a `config.pbtxt` names the batch axis.

    Raises:
        UnprovedError: it is not; the message says why.
        OutOfMemory: see `resolve`.
    """
    if max_rows < 2:
        raise UnprovedError(Basis.SETTING, "a batch has one row: max_batch_rows is 1")
    try:
        takes_extremes = _check_form(graph, is_configured=is_configured)
        _check_runs(session, inputs, outputs, max_rows, takes_extremes=takes_extremes, clock=clock)
    except OutOfMemory as error:
        if not generated_rows.has_free_axes(inputs):
            raise
        # Requests may be smaller than what was tried.
        raise UnprovedError(Basis.RUN, str(error)) from error


def runnable_rows(
    session: Session,
    inputs: Sequence[TensorSpec],
    *,
    is_batched: bool,
    most_run_s: float = _MAX_RUN_S,
) -> list[Row]:
    """Two generated rows that the graph takes, or the inputs of two requests without rows.

    Args:
        most_run_s: limit of one run without rows; a longer run is stopped.

    Raises:
        UnprovedError: the graph takes no generated row, or a run does not end.
        OutOfMemory: a row needs more memory than there is.
    """
    if is_batched:
        return [row for row, _ in _rows(session, inputs)[:2]]
    # The same values, for a tensor whose first axis is an axis as any other.
    whole = [replace(spec, axes=(1, *spec.axes)) for spec in inputs]
    for candidates in generated_rows.candidates(whole):
        requests: list[Row] = [
            {name: array.reshape(array.shape[1:]) for name, array in row.items()}
            for row in candidates
        ]
        found = [request for request in requests if _runs(session, request, most_run_s)]
        if found:
            return found[:2]
    raise UnprovedError(Basis.RUN, "the graph runs on none of the generated inputs")


def _runs(session: Session, inputs: Row, most_s: float) -> bool:
    stop = RunStop()
    timer = threading.Timer(most_s, stop.set)
    timer.start()
    try:
        session.run(inputs, stop)
    except OutOfMemory:
        raise
    except ServerError as error:
        if stop.options.terminate:
            raise UnprovedError(Basis.RUN, f"a run: expected to end within {most_s:g} s") from error
        return False
    finally:
        timer.cancel()
    return True


def _check_form(graph: bytes, *, is_configured: bool) -> bool:
    """Check the shapes of a graph; whether any value may be tried, as no shape depends on it."""
    found = data_dependent_shapes.find(graph)
    outputs = short_list([short_repr(output) for output in found.outputs])
    if is_configured:
        if found.outputs:
            raise UnprovedError(Basis.FORM, f"the shape depends on values, of outputs {outputs}")
        return not found.operators
    if found.operators:
        operators = short_list([short_repr(operator) for operator in found.operators])
        raise UnprovedError(Basis.FORM, f"shapes depend on values, by operators {operators}")
    if found.outputs:
        raise UnprovedError(Basis.FORM, f"the shape may depend on values, of outputs {outputs}")
    if found.reductions:
        reductions = short_list([short_repr(operator) for operator in found.reductions])
        raise UnprovedError(Basis.FORM, f"all rows are reduced to one, by {reductions}")
    return True


def _check_runs(
    session: Session,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_rows: int,
    *,
    takes_extremes: bool,
    clock: Callable[[], float],
) -> None:
    """Run rows alone and together."""

    def check(batch: Sequence[Tried]) -> None:
        together = _run_together(session, collate.join([row for row, _ in batch]))
        for place, (_, alone) in enumerate(batch):
            _check_row(outputs, alone, together, place)

    first, second, *zeros = _rows(session, inputs)
    last = zeros[0] if zeros else second
    started_s = clock()
    check([first, second])
    row_s = (clock() - started_s) / 2
    if row_s > _MAX_ROW_S:
        raise UnprovedError(
            Basis.RUN,
            f"the proof takes too long, {row_s:.1f} s a row; batch_axis = true replaces it",
        )
    is_slow = row_s > _SLOW_ROW_S
    check([last, first])
    if zeros and max_rows > 2:
        check([second, last, first])
    pairs = [(first, first)]
    if not is_slow:
        pairs += _moderate_pairs(session, inputs, [first[0], second[0]])
    different = [second, *(each for pair in pairs for each in pair)]
    _check_content([alone for _, alone in (*different, *zeros)])
    most = _largest_batch(first[0], max_rows, row_s)
    if most > 3:
        # In no order that repeats: a row may depend on another that is any number of rows away.
        numbers = np.random.default_rng(0).integers(len(different), size=most)
        check([different[number] for number in numbers])
    extremes = list(generated_rows.extremes(inputs, second[0])) if takes_extremes else []
    if is_slow:
        # NaN and large numbers; 200 and 100,000 if all inputs are integers.
        extremes = extremes[:3:2]
    neighbours = [second[0], *(extremes or [last[0]])]
    for pair in pairs:
        _check_bits(session, outputs, pair, neighbours, most=min(max_rows, 3))
    if generated_rows.has_free_axes(inputs):
        most_tried = min(max_rows, 2 if is_slow else 3)
        few = itertools.islice(generated_rows.of_few_entries(inputs), 1 if is_slow else None)
        _check_few_entries(session, few, outputs, most_tried)


def _moderate_pairs(
    session: Session, inputs: Sequence[TensorSpec], rows: Sequence[Row]
) -> Iterator[tuple[Tried, Tried]]:
    """Pairs of moderate rows that the graph takes."""
    for pair in generated_rows.moderate(inputs, rows):
        tried = [(row, alone) for row in pair if (alone := _run_alone(session, row))]
        if tried:
            yield tried[0], tried[-1]


def _largest_batch(row: Row, max_rows: int, row_s: float) -> int:
    """The most rows of a batch that is tried."""
    row_bytes = sum(array.nbytes for array in row.values())
    most = min(max_rows, _MAX_BATCH_BYTES // max(row_bytes, 1))
    return most if most * row_s <= _MAX_BATCH_S else int(_MAX_BATCH_S / row_s)


def _check_few_entries(
    session: Session, few: Iterable[Sequence[Row]], outputs: Sequence[TensorSpec], most: int
) -> None:
    """Check that rows of few entries do not make up for each other's missing entries.

    A graph that cuts all entries into blocks of one size takes such rows together only.
    """
    for rows in few:
        for batch in ([0, 1], [0, 1, 0])[: most - 1]:
            try:
                together = _run_together(session, collate.join([rows[number] for number in batch]))
                alone = [_run_alone(session, rows[number]) for number in batch]
            except UnprovedError:
                # Such requests do not share a batch: it fails, or has another number of rows.
                continue
            for place, outputs_alone in enumerate(alone):
                if outputs_alone is None:
                    raise UnprovedError(Basis.RUN, "rows that do not run alone run together")
                _check_row(outputs, outputs_alone, together, place)


def _check_content(answers: Sequence[Mapping[str, Array]]) -> None:
    """Check that the outputs of some rows tell them apart: others prove nothing."""
    first = answers[0]
    for answer in answers[1:]:
        if not all(_same_bits(array, answer[name]) for name, array in first.items()):
            return
    raise UnprovedError(Basis.RUN, "all generated rows have the same outputs, which proves nothing")


def _check_bits(
    session: Session,
    outputs: Sequence[TensorSpec],
    pair: tuple[Tried, Tried],
    neighbours: Sequence[Row],
    *,
    most: int,
) -> None:
    """Check that two rows have the same bits beside any neighbour.

    Args:
        most: rows of the batches that are run, 2 or 3.
    """
    places = pair if most == 2 else (pair[0], *pair)
    # The memory of one batch is filled anew for each run: alignment plays a part in sums.
    batch = collate.join([row for row, _ in places])
    reference = _run_together(session, batch)
    for place, (_, alone) in enumerate(places):
        _check_row(outputs, alone, reference, place)
    # Behind a row and before one; of three rows, both in one run. A graph may take something of the
    # first or the last row alone, whatever it holds.
    for other in range(most):
        own = [place for place in range(most) if place != other]
        for neighbour in neighbours if most == 2 or other == 1 else neighbours[:2]:
            _fill(batch, other, neighbour)
            together = _run_beside(session, batch, neighbour)
            for spec in outputs if together else ():
                if _same_bits(reference[spec.name][own], together[spec.name][own]):
                    continue
                if not _differs_by_itself(session, spec, batch, together):
                    raise _dependent(spec)
                for place in own:
                    _check_row([spec], places[place][1], together, place)
        _fill(batch, other, places[other][0])


def _run_beside(session: Session, batch: dict[str, Array], neighbour: Row) -> Mapping[str, Array]:
    """The outputs of a batch with a generated row; none if the graph refuses that row's values."""
    try:
        return _run_together(session, batch)
    except UnprovedError:
        if _run_alone(session, neighbour) is not None:
            raise
        return {}


def _differs_by_itself(
    session: Session, spec: TensorSpec, batch: dict[str, Array], before: Mapping[str, Array]
) -> bool:
    """Whether the same batch has other bits in another run, as sums by atomic additions have."""
    again = _run_together(session, batch)
    return not _same_bits(before[spec.name], again[spec.name])


def _fill(batch: Mapping[str, Array], place: int, row: Row) -> None:
    for name, array in batch.items():
        array[place] = row[name][0]


def _check_row(
    outputs: Sequence[TensorSpec],
    alone: Mapping[str, Array],
    together: Mapping[str, Array],
    place: int,
) -> None:
    """Check that the row at a place of a batch equals its result alone."""
    for spec in outputs:
        tolerance = _TOLERANCES.get(spec.datatype)
        own = together[spec.name][place : place + 1]
        if not _is_equal(spec.datatype, alone[spec.name], own, tolerance):
            raise _dependent(spec)


def _dependent(output: TensorSpec) -> UnprovedError:
    return UnprovedError(
        Basis.RUN,
        f"a row of output {short_repr(output.name)} depends on the other rows of its batch",
    )


def _run_together(session: Session, batch: dict[str, Array]) -> dict[str, Array]:
    """The outputs of several rows that run alone, as many rows in each."""
    rows = len(next(iter(batch.values())))
    try:
        together = session.run(batch)
    except OutOfMemory as error:
        reason = f"a batch of {rows} rows needs more memory than there is"
        raise UnprovedError(Basis.RUN, reason) from error
    except ServerError as error:
        raise UnprovedError(Basis.RUN, "rows that run alone do not run together") from error
    _check_counts(together, rows)
    return together


def _run_alone(session: Session, row: Row) -> Mapping[str, Array] | None:
    """The outputs of one row; None if the graph refuses its values."""
    try:
        outputs = session.run(row)
    except OutOfMemory:
        raise
    except ServerError:
        # A generated row may have invalid values for this graph.
        return None
    _check_counts(outputs, 1)
    return outputs


def _rows(session: Session, inputs: Sequence[TensorSpec]) -> list[Tried]:
    """Two rows that the graph takes, and the zeros if it takes those."""
    for candidates in generated_rows.candidates(inputs):
        rows = [(row, alone) for row in candidates if (alone := _run_alone(session, row))]
        if len(rows) > 1:
            return rows
    raise UnprovedError(Basis.RUN, "the graph runs on no two of the generated rows")


def _check_counts(outputs: Mapping[str, Array], rows: int) -> None:
    try:
        collate.check_rows(outputs, rows)
    except collate.RowCountError as error:
        raise UnprovedError(Basis.RUN, str(error)) from None


def _same_bits(one: Array, other: Array) -> bool:
    if one.dtype.kind == "O":
        return np.array_equal(one, other)
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def _is_equal(datatype: str, alone: Array, together: Array, tolerance: float | None) -> bool:
    if alone.shape != together.shape:
        return False
    if tolerance is None:
        return np.array_equal(alone, together)
    expected, actual = _numbers(datatype, alone), _numbers(datatype, together)
    greatest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    # The last summand allows for values that are zero alone, and next to zero in a batch.
    allowed = tolerance * greatest + 0.01 * tolerance
    return np.allclose(actual, expected, rtol=0.0, atol=allowed, equal_nan=True)


def _numbers(datatype: str, array: Array) -> NDArray[np.float64]:
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)
