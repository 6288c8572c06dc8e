"""Batch axis of a graph: named by contract, `config.pbtxt` or setting, or proved at load.

The name of an axis proves nothing, and a missing name disproves nothing. Requests of a plain model
share batches if the first axis of every tensor has any size, no two of those axes have different
names, and two proofs hold:

    form     no shape in the graph depends on the values of its inputs, and no operator makes one
             number of all of them (`data_dependent_shapes`)
    run      rows of different content, and a row of zeros: one row gives one row, several rows give
             as many, and each equals its result alone, also in the largest batch; its result has
             the same bits whatever the other rows hold, NaN and large numbers included; rows of
             few entries that are refused alone are refused together

A run alone proves nothing about other values, and the form alone nothing about rows that are mixed.
If a `config.pbtxt` names a batch axis, shapes inside the graph may depend on values, but no output
may have such a shape, and the run is still needed. The operator's setting `batch_axis` replaces
both proofs.

A tolerance hides a small influence of one row on another. Bits do not: batches of equal shape are
computed alike, so a row at its place changes only if another row reaches it. NaN shows through
every sum and product, and a large number in every comparison with a threshold.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle import data_dependent_shapes
from weir.bundle.contract import Contract
from weir.bundle.escaping import short_list, short_repr
from weir.bundle.external_data import ResolvedGraph
from weir.protocol.datatypes import DATATYPES
from weir.server.config import ModelSettings
from weir.server.errors import ModelLoadError, OutOfMemory, ServerError
from weir.server.repository import plain_tensors, triton
from weir.server.repository.plain_tensors import Tensors
from weir.server.repository.triton import TritonConfig
from weir.server.runtime import collate
from weir.server.runtime.session import Session
from weir.server.runtime.signature import TensorSpec
from weir.server.scheduling.batching import BATCHED_BY_CONTRACT, Basis, BatchDecision
from weir.server.scheduling.batching import max_rows as most_rows

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Row = Mapping[str, Array]
Tried = tuple[Row, Mapping[str, Array]]
"""A row that the graph takes, and its outputs alone."""

_NAMES = ("N", "n", "bs")
# Names that exporters make up, of which no two are equal: torch.onnx for an output's axis that only
# its tracer knew, and for an axis that `dynamic_axes` lists without a name; Paddle2ONNX for any.
_MADE_UP = re.compile(r".*_(dim|dynamic_axes)_\d+|(.*\.)?DynamicDimension\.\d+")
# Sizes to try for a free axis besides the batch axis: a sequence, a picture, a large picture, and
# sizes that few graphs take.
_SIZES = (8, 32, 256, 1, 2, 3)
# Least and greatest integer, and the greatest UINT8, which is often a pixel. They are small, since
# an id beyond a vocabulary is an error at best.
_INTEGERS = ((0, 3, 255), (0, 1, 1), (1, 2, 2))
# Of a row beside which no other may change: a pixel, a number of words, and beyond. No value is the
# least of its type, whose quotient by -1 ends the process.
_LARGE_INTEGERS = (200, 1000, 100_000, -1000)
# Sizes of a free axis of which a few rows together may have the size that a graph demands.
_FEW = (1, 2, 3, 4)
# Limits of the inputs of a row and of a batch: a graph may name any size.
_MOST_ROW_BYTES, _MOST_BATCH_BYTES = 1 << 26, 1 << 28
# Limits of time: the proof runs 70 to 140 rows, and the largest batch.
_MOST_ROW_S, _MOST_BATCH_S = 0.5, 5.0
# Relative to the greatest value of a row and output: a batch is summed in another order than a row
# alone. Without a tolerance, values must be equal.
_TOLERANCES = {"FP64": 1e-6, "FP32": 1e-3, "FP16": 2e-2, "BF16": 5e-2}
# Near the greatest finite number; a sum of a few is infinite in FP16 only.
_GREATEST = {"FP64": 1e30, "FP32": 1e30, "FP16": 6e4, "BF16": 1e30}

_PROVED = BatchDecision(
    is_batched=True, basis=Basis.PROOF, reason="the batch axis was proved at load"
)


class UnprovedError(Exception):
    """The axis is not proved to be the batch axis; the message says why."""

    def __init__(self, basis: Basis, reason: str) -> None:
        super().__init__(reason)
        self.basis = basis


@dataclass(frozen=True, slots=True)
class BatchAxis:
    """The tensors of a graph with its batch axis, and whether requests share batches.

    Attributes:
        only_proved: whether the batch axis is proved, and not named by contract, configuration,
            setting or graph.
    """

    tensors: Tensors
    decision: BatchDecision
    only_proved: bool = False


def resolve(
    graph: bytes,
    session: Session,
    contract: Contract | None,
    config: TritonConfig | None,
    *,
    setting: bool | None,
    max_rows: int,
) -> BatchAxis:
    """The batch axis of a graph; of a plain model it is set or proved.

    Args:
        setting: the operator's `batch_axis`.

    Raises:
        ModelLoadError: the graph has other tensors than contract or configuration, or no first axes
            that can be the batch axis as it is set.
        OutOfMemory: a single row needs more memory than there is, as small as a row may be.
    """
    if contract is not None:
        return _of_contract(contract, session, setting=setting)
    tensors = Tensors(session.inputs, session.outputs, None, defaults=session.defaults)
    if config is not None and config.max_batch_size is not None:
        tensors = plain_tensors.narrow(
            config,
            config.max_batch_size,
            session.inputs,
            session.outputs,
            defaults=session.defaults,
            unserved=session.unserved,
        )
    is_configured = tensors.batch_axis is not None
    if setting is not None:
        if setting:
            tensors = _with_batch_axis(tensors)
        return BatchAxis(tensors, _set(is_batched=setting))
    is_named = is_configured
    declared = tensors.outputs
    try:
        _check_first_axes(tensors, config)
        tensors = replace(tensors, outputs=[_with_free_axis(spec) for spec in tensors.outputs])
        if not is_configured:
            tensors = replace(tensors, batch_axis=_candidate(tensors))
            is_named = _is_named(tensors)
        prove(
            graph,
            tensors.of(session),
            tensors.inputs,
            tensors.outputs,
            is_configured=is_configured,
            max_rows=max_rows,
        )
    except UnprovedError as error:
        tensors = replace(tensors, outputs=declared)
        has_axis = is_configured or (is_named and error.basis is Basis.SETTING)
        return BatchAxis(
            tensors if has_axis else replace(tensors, batch_axis=None),
            BatchDecision(is_batched=False, basis=error.basis, reason=str(error)),
        )
    return BatchAxis(tensors, _PROVED, only_proved=not is_named)


def inspect(graph: ResolvedGraph, config: TritonConfig | None) -> BatchDecision:
    """The decision of a server on the CPU that has no settings for this plain model.

    Raises:
        ModelLoadError, OutOfMemory: the server would not serve it.
    """
    session = Session(
        graph.model, provider="cpu", threads=1, has_few_shapes=False, external=graph.external
    )
    rows = most_rows(triton.with_config(ModelSettings(), config), None)
    axis = resolve(graph.model, session, None, config, setting=None, max_rows=rows)
    return axis.decision


def log(name: str, decision: BatchDecision) -> None:
    """Log what was decided of a plain model; a failed proof is a warning."""
    match decision.basis:
        case Basis.PROOF:
            logger.info("batch axis proved model=%s", name)
        case Basis.FORM | Basis.RUN:
            logger.warning("model is not batched model=%s reason=%s", name, decision.reason)
        case Basis.SETTING | Basis.NO_AXIS:
            event = "model is batched" if decision.is_batched else "model is not batched"
            logger.info("%s model=%s reason=%s", event, name, decision.reason)


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
        if not _has_free_axes(inputs):
            raise
        # Requests may be smaller than what was tried.
        raise UnprovedError(Basis.RUN, str(error)) from error


def _of_contract(contract: Contract, session: Session, *, setting: bool | None) -> BatchAxis:
    specs = (*session.inputs, *session.outputs)
    first_axes = {spec.axes[0] if spec.axes else None for spec in specs}
    if contract.batch_axis is not None and first_axes != {contract.batch_axis}:
        raise ModelLoadError(
            f"contract: expected axis {contract.batch_axis!r} first in every tensor, "
            f"got {sorted(map(str, first_axes))}"
        )
    tensors = Tensors(session.inputs, session.outputs, contract.batch_axis)
    if contract.batch_axis is None:
        if setting:
            raise ModelLoadError("batch_axis = true: the contract names no batch axis")
        decision = BatchDecision(
            is_batched=False, basis=Basis.CONTRACT, reason="the contract names no batch axis"
        )
    else:
        decision = BATCHED_BY_CONTRACT if setting is not False else _set(is_batched=False)
    return BatchAxis(tensors, decision)


def _set(*, is_batched: bool) -> BatchDecision:
    reason = f"the setting batch_axis is {str(is_batched).lower()}"
    return BatchDecision(is_batched=is_batched, basis=Basis.SETTING, reason=reason)


def _with_batch_axis(tensors: Tensors) -> Tensors:
    """The tensors with one symbol for their first axes, which the operator says are the batch."""
    if fixed := _without_free_axis(tensors):
        raise ModelLoadError(
            f"batch_axis = true: expected a first axis of any size in every tensor, got {fixed}"
        )
    if not tensors.inputs:
        raise ModelLoadError("batch_axis = true: expected inputs, got none")
    taken = {axis for spec in (*tensors.inputs, *tensors.outputs) for axis in spec.axes[1:]}
    batch = "batch"
    while batch in taken:
        batch += "_"
    inputs, outputs = (
        [replace(spec, axes=(batch, *spec.axes[1:])) for spec in group]
        for group in (tensors.inputs, tensors.outputs)
    )
    return replace(tensors, inputs=inputs, outputs=outputs, batch_axis=batch)


def _check_first_axes(tensors: Tensors, config: TritonConfig | None) -> None:
    if config is not None and config.max_batch_size == 0:
        raise UnprovedError(Basis.NO_AXIS, "max_batch_size of config.pbtxt is 0")
    if not tensors.inputs:
        raise UnprovedError(Basis.NO_AXIS, "the graph has no inputs")
    if fixed := _without_free_axis(tensors):
        raise UnprovedError(Basis.NO_AXIS, f"{fixed} has no first axis of any size")


def _candidate(tensors: Tensors) -> str:
    """The symbol of the axis that may be the batch axis; `batch` if the graph has none for it."""
    specs = (*tensors.inputs, *tensors.outputs)
    names = {
        axis
        for axis in (axis for spec in specs for axis in spec.axes[:1])
        if isinstance(axis, str) and not _MADE_UP.fullmatch(axis)
    }
    if len(names) > 1:
        listed = short_list([short_repr(name) for name in sorted(names)])
        raise UnprovedError(Basis.NO_AXIS, f"the first axes have different names: {listed}")
    for spec in specs:
        if names & set(spec.axes[1:]):
            raise UnprovedError(
                Basis.NO_AXIS,
                f"{short_repr(spec.name)} has the size of its first axis on another axis too",
            )
    return names.pop() if names else "batch"


def _is_named(tensors: Tensors) -> bool:
    """Whether the graph calls the first axis of every tensor the batch axis."""
    axis = tensors.batch_axis
    return (
        axis is not None
        and ("batch" in axis.lower() or axis in _NAMES)
        and all(spec.axes[:1] == (axis,) for spec in (*tensors.inputs, *tensors.outputs))
    )


def _without_free_axis(tensors: Tensors) -> str | None:
    """The first tensor whose first axis has no free size, in words; None if there is none."""
    for kind, specs in (("input", tensors.inputs), ("output", tensors.outputs)):
        for spec in specs:
            # An output without a shape may have rows; of such an input, not all ranks can be tried.
            if kind == "output" and (not spec.has_shape or spec.axes[:1] == (1,)):
                continue
            if not spec.axes or isinstance(spec.axes[0], int):
                return f"{kind} {short_repr(spec.name)} {list(spec.wire_shape())}"
    return None


def _with_free_axis(output: TensorSpec) -> TensorSpec:
    """The output with any number of rows; an exporter may write the one row of its example."""
    if output.axes[:1] != (1,):
        return output
    return replace(output, axes=(None, *output.axes[1:]))


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
        raise UnprovedError(Basis.FORM, f"all rows are reduced to one number, by {reductions}")
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
    if row_s > _MOST_ROW_S:
        raise UnprovedError(
            Basis.RUN,
            f"the proof takes too long, {row_s:.1f} s a row; batch_axis = true replaces it",
        )
    check([last, first])
    if zeros and max_rows > 2:
        check([second, last, first])
    pairs = [(first, first)]
    for moderate in _moderate(inputs, [first[0], second[0]]):
        tried = [(row, alone) for row in moderate if (alone := _run_alone(session, row))]
        if tried:
            pairs.append((tried[0], tried[-1]))
    different = [second, *(each for pair in pairs for each in pair)]
    _check_content([alone for _, alone in (*different, *zeros)])
    most = _largest_batch(first[0], max_rows, row_s)
    if most > 3:
        # In no order that repeats: a row may depend on another that is any number of rows away.
        numbers = np.random.default_rng(0).integers(len(different), size=most)
        check([different[number] for number in numbers])
    extremes = list(_extremes(inputs, second[0])) if takes_extremes else []
    neighbours = [second[0], *(extremes or [last[0]])]
    for pair in pairs:
        _check_bits(session, outputs, pair, neighbours, most=min(max_rows, 3))
    if _has_free_axes(inputs):
        _check_few_entries(session, inputs, outputs, min(max_rows, 3))


def _largest_batch(row: Row, max_rows: int, row_s: float) -> int:
    """The most rows of a batch that is tried."""
    row_bytes = sum(array.nbytes for array in row.values())
    most = min(max_rows, _MOST_BATCH_BYTES // max(row_bytes, 1))
    return most if most * row_s <= _MOST_BATCH_S else int(_MOST_BATCH_S / row_s)


def _check_few_entries(
    session: Session, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], most: int
) -> None:
    """Check that rows of few entries do not make up for each other's missing entries.

    A graph that cuts all entries into blocks of one size takes such rows together only.
    """
    for size in _FEW:
        shapes = _row_shapes(inputs, size)
        if _bytes_of(inputs, shapes) > _MOST_ROW_BYTES:
            continue
        rows = _rows_of(inputs, shapes, _INTEGERS[1])[:2]
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
    raise UnprovedError(Basis.RUN, "all made-up rows have the same outputs, which proves nothing")


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
    """The outputs of a batch with a made-up row; none if the graph refuses that row's values."""
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
        # A made-up row may have invalid values for this graph.
        return None
    _check_counts(outputs, 1)
    return outputs


def _rows(session: Session, inputs: Sequence[TensorSpec]) -> list[Tried]:
    """Two rows that the graph takes, and the zeros if it takes those."""
    for candidates in _candidates(inputs):
        rows = [(row, alone) for row in candidates if (alone := _run_alone(session, row))]
        if len(rows) > 1:
            return rows
    raise UnprovedError(Basis.RUN, "the graph runs on no two rows that could be made up for it")


def _check_counts(outputs: Mapping[str, Array], rows: int) -> None:
    try:
        collate.check_rows(outputs, rows)
    except collate.RowCountError as error:
        raise UnprovedError(Basis.RUN, str(error)) from None


def _extremes(inputs: Sequence[TensorSpec], row: Row) -> Iterator[Row]:
    """The row with NaN, infinity, and large numbers of either sign, for its floating-point values.

    Then with large integers; a graph may refuse those. The large numbers differ, as a row of equal
    ones is nothing less its mean.
    """
    generator = np.random.default_rng(1)
    if any(spec.datatype in _GREATEST for spec in inputs):
        for sign in (math.nan, math.inf, 1.0, -1.0):
            yield {
                spec.name: _floats(
                    spec, sign * most * generator.uniform(0.1, 1, row[spec.name].shape)
                )
                if (most := _GREATEST.get(spec.datatype)) is not None
                else row[spec.name]
                for spec in inputs
            }
    if any(map(_is_countable, inputs)):
        for number in _LARGE_INTEGERS:
            yield _counted(inputs, row, number)


def _moderate(inputs: Sequence[TensorSpec], rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Pairs of rows that do not exceed thresholds that their neighbours exceed.

    Their numbers are between 0.01 and 0.5 and between 0.5 and 3, the second pair's are negative.
    Integers are 0 and 1, or as they are. Then there are rows whose integers are all 1 or all 0, and
    their booleans.
    """
    generator = np.random.default_rng(2)

    def values(spec: TensorSpec, array: Array, sign: int, bounds: tuple[float, float]) -> Array:
        if spec.datatype in _GREATEST:
            return _floats(spec, sign * generator.uniform(*bounds, array.shape))
        return array % 2 if sign > 0 and array.dtype.kind in "iu" else array

    pairs: list[tuple[Row, Row]] = []
    for row, sign in zip(rows, (1, -1), strict=True):
        small, large = (
            {spec.name: values(spec, row[spec.name], sign, bounds) for spec in inputs}
            for bounds in ((0.01, 0.5), (0.5, 3.0))
        )
        pairs.append((small, large))
    yield from pairs
    if any(map(_is_countable, inputs)):
        for pair, number in zip(pairs, (1, 0), strict=True):
            counted = _counted(inputs, pair[0], number)
            yield counted, counted


def _is_countable(spec: TensorSpec) -> bool:
    return DATATYPES[spec.datatype].dtype.kind in "iub" and spec.datatype != "BF16"


def _counted(inputs: Sequence[TensorSpec], row: Row, number: int) -> Row:
    """The row with one number, or the nearest there is, in place of its integers and booleans."""
    counted = dict(row)
    for spec in filter(_is_countable, inputs):
        array = row[spec.name]
        if array.dtype.kind == "b":
            counted[spec.name] = np.full_like(array, number != 0)
        else:
            limits = np.iinfo(array.dtype)
            least = limits.min if limits.min == 0 else limits.min + 1
            counted[spec.name] = np.full_like(array, min(max(number, least), limits.max))
    return counted


def _floats(spec: TensorSpec, values: Array) -> Array:
    if spec.datatype == "BF16":
        return _bf16(values.astype(np.float32))
    return values.astype(DATATYPES[spec.datatype].dtype)


def _same_bits(one: Array, other: Array) -> bool:
    if one.dtype.kind == "O":
        return np.array_equal(one, other)
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def _candidates(inputs: Sequence[TensorSpec]) -> Iterator[list[Row]]:
    """Rows to try: two of different content, one of zeros; by axis size, then by integer range."""
    for size in _SIZES if _has_free_axes(inputs) else (1,):
        shapes = _row_shapes(inputs, size)
        if _bytes_of(inputs, shapes) > _MOST_ROW_BYTES:
            continue
        for integers in _INTEGERS:
            yield _rows_of(inputs, shapes, integers)


def _row_shapes(inputs: Sequence[TensorSpec], size: int) -> dict[str, tuple[int, ...]]:
    """The shape of each input of one row whose free axes have this size."""
    return {
        spec.name: (1, *(axis if isinstance(axis, int) else size for axis in spec.axes[1:]))
        for spec in inputs
    }


def _bytes_of(inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(
        math.prod(shapes[spec.name]) * DATATYPES[spec.datatype].dtype.itemsize for spec in inputs
    )


def _rows_of(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]],
    integers: tuple[int, int, int],
) -> list[Row]:
    """Two rows of different content, and one of zeros."""
    least, most, most_byte = integers
    generator = np.random.default_rng(0)
    first, second, zeros = {}, {}, {}
    for spec in inputs:
        greatest = most_byte if spec.datatype == "UINT8" else most
        first[spec.name], second[spec.name], zeros[spec.name] = _values(
            spec.datatype, shapes[spec.name], least, greatest, generator
        )
    return [first, second, zeros]


def _has_free_axes(inputs: Sequence[TensorSpec]) -> bool:
    """Whether a row may have several sizes."""
    return any(not isinstance(axis, int) for spec in inputs for axis in spec.axes[1:])


def _values(
    datatype: str, shape: tuple[int, ...], least: int, most: int, generator: np.random.Generator
) -> tuple[Array, Array, Array]:
    """One input's values in two rows that differ everywhere, and in a row of zeros."""
    dtype = DATATYPES[datatype].dtype
    if datatype == "BF16":
        numbers = generator.standard_normal(shape, np.float32), generator.normal(0, 10, shape)
        first, second = (_bf16(values.astype(np.float32)) for values in numbers)
        return first, second, np.zeros(shape, dtype)
    if dtype.kind == "f":
        first = generator.standard_normal(shape).astype(dtype)
        return first, generator.normal(0, 10, shape).astype(dtype), np.zeros(shape, dtype)
    if dtype.kind == "b":
        first = generator.integers(0, 2, shape).astype(dtype)
        return first, ~first, np.zeros(shape, dtype)
    integers = generator.integers(least, most + 1, shape)
    others = least + most - integers
    if dtype.kind == "O":
        texts = [values.astype(str).astype(object) for values in (integers, others)]
        return texts[0], texts[1], np.full(shape, "", dtype)
    return integers.astype(dtype), others.astype(dtype), np.zeros(shape, dtype)


def _bf16(values: NDArray[np.float32]) -> Array:
    """The upper half of each number's bits."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


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
