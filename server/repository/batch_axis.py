"""Batch axis of a graph: named by contract, `config.pbtxt` or graph, and proved for a plain model.

The name of an axis proves nothing. Requests of a plain model share a batch only after two proofs:

    form     no shape in the graph depends on the values of its inputs (`data_dependent_shapes`)
    run      rows of different content, and a row of zeros: one row gives one row, several rows give
             as many, and each equals its result alone

A run alone proves nothing about other values, and the form alone nothing about rows that are mixed.
If a `config.pbtxt` names a batch axis, shapes inside the graph may depend on values, but no output
may have such a shape, and the run is still needed.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle import data_dependent_shapes
from weir.bundle.contract import Contract
from weir.bundle.escaping import short_list, short_repr
from weir.protocol.datatypes import DATATYPES
from weir.server.errors import ModelLoadError, OutOfMemory, ServerError
from weir.server.repository import triton
from weir.server.repository.triton import Tensors, TritonConfig
from weir.server.runtime import collate
from weir.server.runtime.session import Session
from weir.server.runtime.signature import TensorSpec

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Row = Mapping[str, Array]

_NAMES = ("N", "n", "bs")
# Sizes to try for a free axis besides the batch axis: a sequence, a picture, a large picture, and
# sizes that few graphs take.
_SIZES = (8, 32, 256, 1, 2, 3)
# Least and greatest integer, and the greatest UINT8, which is often a pixel. They are small, since
# an id beyond a vocabulary is an error at best.
_INTEGERS = ((0, 3, 255), (0, 1, 1), (1, 2, 2))
# Limit of a row's inputs: a graph may name any size.
_MOST_ROW_BYTES = 1 << 26
# Relative to the greatest value of a row and output: a batch is summed in another order than a row
# alone. Without a tolerance, values must be equal.
_TOLERANCES = {"FP64": 1e-6, "FP32": 1e-3, "FP16": 2e-2, "BF16": 5e-2}


class _UnprovedError(Exception):
    """The axis is not proved to be the batch axis; the message says why."""


def resolve(
    name: str,
    graph: bytes,
    session: Session,
    contract: Contract | None,
    config: TritonConfig | None,
    *,
    max_rows: int,
) -> Tensors:
    """The tensors of a graph with its batch axis; of a plain model it is proved.

    Raises:
        ModelLoadError: the graph has other tensors than contract or configuration.
        OutOfMemory: see `is_proved`.
    """
    tensors = _named(contract, config, session)
    if contract is not None or tensors.batch_axis is None or not tensors.inputs or max_rows < 2:
        return tensors
    is_configured = config is not None and bool(config.max_batch_size)
    if is_proved(
        name,
        graph,
        session,
        tensors.inputs,
        tensors.outputs,
        is_configured=is_configured,
        max_rows=max_rows,
    ):
        return tensors
    # Without a configuration, only the name says that there are rows at all.
    return replace(
        tensors, is_batched=False, batch_axis=tensors.batch_axis if is_configured else None
    )


def is_proved(
    name: str,
    graph: bytes,
    session: Session,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    is_configured: bool,
    max_rows: int,
) -> bool:
    """Whether the first axis of all tensors is the batch axis; the result is logged.

    Args:
        inputs: with the sizes that requests must have.
        is_configured: whether a `config.pbtxt` names the batch axis.

    Raises:
        OutOfMemory: the graph needs more than there is, with inputs as small as requests may have.
    """
    try:
        _check_form(graph, is_configured=is_configured)
        _check_runs(session, inputs, outputs, max_rows)
    except OutOfMemory as error:
        if not _has_free_axes(inputs):
            raise
        # Requests may be smaller than what was tried.
        reason = str(error)
    except _UnprovedError as error:
        reason = str(error)
    else:
        logger.info("batch axis proved model=%s", name)
        return True
    logger.warning("model is not batched model=%s reason=%s", name, reason)
    return False


def _named(contract: Contract | None, config: TritonConfig | None, session: Session) -> Tensors:
    """The tensors with the batch axis that contract, configuration or graph name."""
    if config is not None and config.max_batch_size is not None:
        return triton.narrow(config, config.max_batch_size, session.inputs, session.outputs)
    first_axes = {
        spec.axes[0] if spec.axes else None for spec in (*session.inputs, *session.outputs)
    }
    if contract is not None:
        if contract.batch_axis is not None and first_axes != {contract.batch_axis}:
            raise ModelLoadError(
                f"contract: expected axis {contract.batch_axis!r} first in every tensor, "
                f"got {sorted(map(str, first_axes))}"
            )
        return Tensors(session.inputs, session.outputs, contract.batch_axis)
    axis = first_axes.pop() if len(first_axes) == 1 else None
    is_batch = isinstance(axis, str) and ("batch" in axis.lower() or axis in _NAMES)
    return Tensors(session.inputs, session.outputs, str(axis) if is_batch else None)


def _check_form(graph: bytes, *, is_configured: bool) -> None:
    found = data_dependent_shapes.find(graph)
    outputs = short_list([short_repr(output) for output in found.outputs])
    if is_configured:
        if found.outputs:
            raise _UnprovedError(f"the shape depends on values, of outputs {outputs}")
        return
    if found.operators:
        operators = short_list([short_repr(operator) for operator in found.operators])
        raise _UnprovedError(f"shapes depend on values, by operators {operators}")
    if found.outputs:
        raise _UnprovedError(f"the shape may depend on values, of outputs {outputs}")


def _check_runs(
    session: Session, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_rows: int
) -> None:
    """Run rows alone and together."""
    rows, alone = _rows(session, inputs)
    last = len(rows) - 1
    batches = [[0, 1], [last, 0]]
    if min(last + 1, max_rows) > 2:
        batches.append([1, last, 0])
    for batch in batches:
        try:
            together = session.run(collate.join([rows[number] for number in batch]))
        except OutOfMemory:
            raise
        except ServerError as error:
            raise _UnprovedError("rows that run alone do not run together") from error
        _check_counts(together, len(batch))
        for place, number in enumerate(batch):
            for spec in outputs:
                tolerance = _TOLERANCES.get(spec.datatype)
                own = together[spec.name][place : place + 1]
                if not _is_equal(spec.datatype, alone[number][spec.name], own, tolerance):
                    raise _UnprovedError(
                        f"a row of output {short_repr(spec.name)} depends on the other rows of "
                        "its batch"
                    )


def _rows(
    session: Session, inputs: Sequence[TensorSpec]
) -> tuple[list[Row], list[Mapping[str, Array]]]:
    """Two or three rows that the graph takes, and the outputs of each alone."""
    for candidates in _candidates(inputs):
        rows: list[Row] = []
        alone: list[Mapping[str, Array]] = []
        for row in candidates:
            try:
                outputs = session.run(row)
            except OutOfMemory:
                raise
            except ServerError:
                # A made-up row may have invalid values for this graph.
                continue
            _check_counts(outputs, 1)
            rows.append(row)
            alone.append(outputs)
        if len(rows) > 1:
            return rows, alone
    raise _UnprovedError("the graph runs on no two rows that could be made up for it")


def _check_counts(outputs: Mapping[str, Array], rows: int) -> None:
    try:
        collate.check_rows(outputs, rows)
    except collate.RowCountError as error:
        raise _UnprovedError(str(error)) from None


def _candidates(inputs: Sequence[TensorSpec]) -> Iterator[list[Row]]:
    """Rows to try: two of different content, one of zeros; by axis size, then by integer range."""
    for size in _SIZES if _has_free_axes(inputs) else (1,):
        shapes = {
            spec.name: (1, *(axis if isinstance(axis, int) else size for axis in spec.axes[1:]))
            for spec in inputs
        }
        row_bytes = sum(
            math.prod(shapes[spec.name]) * DATATYPES[spec.datatype].dtype.itemsize
            for spec in inputs
        )
        if row_bytes > _MOST_ROW_BYTES:
            continue
        for least, most, most_byte in _INTEGERS:
            generator = np.random.default_rng(0)
            first, second, zeros = {}, {}, {}
            for spec in inputs:
                greatest = most_byte if spec.datatype == "UINT8" else most
                shape = shapes[spec.name]
                first[spec.name], second[spec.name], zeros[spec.name] = _values(
                    spec.datatype, shape, least, greatest, generator
                )
            yield [first, second, zeros]


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
