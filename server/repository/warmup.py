"""Warm-up: runs before the first request, so that memory and kernels are in place.

If all rows have one size: every batch size that the scheduler will make, doubled up to the largest.
If rows have lengths: one row and a full batch at each doubled length, up to the first that holds
the longest recorded row, for two seconds at most. The lengths in between need nothing that the next
longer one does not (`session`). To hold memory for full batches of the longest allowed rows would
be waste: a tagger takes 720 MB for 512 tokens, 140 MB for 64.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.golden import Golden
from weir.protocol.datatypes import DATATYPES
from weir.server.errors import ModelLoadError, OutOfMemory, ServerError
from weir.server.runtime import collate
from weir.server.runtime.collate import Padding
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Signature
from weir.server.scheduling.batching import BatchPolicy

logger = logging.getLogger(__name__)

Array = NDArray[Any]

Run = Callable[[Mapping[str, Array], int], None]
"""Runs a batch of so many rows."""

_MIN_LENGTH = 8
_MAX_S = 2.0
# Limit of a batch's inputs: a graph may name any size, and a contract any number of rows.
_MAX_BYTES = 1 << 28


def warm_up(
    session: Session,
    signature: Signature,
    golden: Golden | None,
    *,
    name: str,
    is_plain: bool,
    policy: BatchPolicy,
    measured: Callable[[int, float], None],
    paddings: Sequence[Padding] = (),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run a model on recorded inputs, or on zeros if all axes but the rows' are fixed.

    Args:
        measured: called after each run with its work (rows, or tokens if rows have lengths) and
            its seconds, so that the first requests find an estimate of both.

    Raises:
        ServerError: a run fails. Of a plain model it is logged: zeros may be invalid values for it.
        OutOfMemory: of any model.
    """
    if is_plain and session.has_loop:
        # Zeros may be values for which a loop goes on for ever.
        return

    def run(inputs: Mapping[str, Array], rows: int) -> None:
        started_s = clock()
        session.run(inputs)
        seconds = clock() - started_s
        measured(collate.count_tokens(inputs, paddings).computed or rows, seconds)

    try:
        if golden is not None and any(padding.length_input for padding in paddings):
            _run_lengths(run, golden, policy, paddings, clock)
        else:
            _run_rows(run, signature, golden, paddings)
    except ServerError as error:
        if not is_plain or isinstance(error, OutOfMemory):
            raise
        logger.warning("warm-up failed model=%s reason=%s", name, error)


def recorded_rows(
    signature: Signature, golden: Golden | None, rows: int, paddings: Sequence[Padding]
) -> Mapping[str, Array] | None:
    """A batch of recorded rows, or of zeros if all axes but the rows' are fixed; else None."""
    inputs = _inputs(signature, golden, rows)
    return None if inputs is None else collate.join([inputs], paddings)


def _run_rows(
    run: Run, signature: Signature, golden: Golden | None, paddings: Sequence[Padding]
) -> None:
    rows = 1
    while True:
        inputs = recorded_rows(signature, golden, rows, paddings)
        if inputs is None:
            return
        run(inputs, rows)
        if rows >= signature.max_rows:
            return
        rows = min(2 * rows, signature.max_rows)


def _run_lengths(
    run: Run,
    golden: Golden,
    policy: BatchPolicy,
    paddings: Sequence[Padding],
    clock: Callable[[], float],
) -> None:
    """Run doubled lengths, until the next one, which takes twice as long, would exceed the time."""
    started_s = now = clock()
    for length in _lengths(golden, paddings):
        most = policy.max_rows if policy.max_tokens is None else policy.max_tokens // length
        # A row is repeated as it was recorded, then stretched.
        stretched = _stretched(_repeated(golden, 1), paddings, length)
        row_bytes = max(_row_bytes(golden.inputs), _row_bytes(stretched))
        most = min(policy.max_rows, most, _MAX_BYTES // row_bytes)
        for rows in (1, max(1, most)):
            inputs = _stretched(_repeated(golden, rows), paddings, length)
            run(collate.join([inputs], paddings), rows)
        last_s, now = clock() - now, clock()
        if now - started_s + 2 * last_s > _MAX_S:
            return


def _lengths(golden: Golden, paddings: Sequence[Padding]) -> Iterator[int]:
    counted = [padding for padding in paddings if padding.length_input is not None]
    longest = max(padding.size_of(golden.inputs) for padding in counted)
    most = max(padding.maximum for padding in counted)
    length = min(_MIN_LENGTH, most)
    while True:
        yield length
        if length >= longest:
            return
        length = min(2 * length, most)


def _stretched(
    inputs: Mapping[str, Array], paddings: Sequence[Padding], length: int
) -> dict[str, Array]:
    """The rows cut or repeated to another length, without padding."""
    stretched = dict(inputs)
    for padding in paddings:
        if padding.length_input is None:
            continue
        size = min(length, padding.maximum)
        for name, positions in padding.inputs.items():
            for position in positions:
                array = stretched[name]
                indices = np.arange(size) % array.shape[position]
                stretched[name] = array.take(indices, axis=position)
        own = stretched[padding.length_input.name]
        stretched[padding.length_input.name] = padding.length_input.full(len(own), size, own.dtype)
    return stretched


def _inputs(signature: Signature, golden: Golden | None, rows: int) -> dict[str, Array] | None:
    """Recorded inputs, repeated to so many rows, or zeros if all other axes are fixed.

    None if an axis is free, or if the inputs are larger than a warm-up may make them.
    """
    if golden is not None:
        if not signature.has_rows:
            return dict(golden.inputs)
        is_small = rows * _row_bytes(golden.inputs) <= _MAX_BYTES
        return _repeated(golden, rows) if is_small else None
    inputs: dict[str, Array] = {}
    left_bytes = _MAX_BYTES
    for spec in signature.inputs.values():
        axes = (rows, *spec.axes[1:]) if signature.has_rows else spec.axes
        if not spec.has_shape or not all(isinstance(axis, int) for axis in axes):
            return None
        shape = tuple(int(axis) for axis in axes if axis is not None)
        dtype = DATATYPES[spec.datatype].dtype
        left_bytes -= math.prod(shape) * dtype.itemsize
        if left_bytes < 0:
            return None
        inputs[spec.name] = np.full(shape, "" if dtype.kind == "O" else 0, dtype)
    return inputs


def _row_bytes(inputs: Mapping[str, Array]) -> int:
    return sum(array[:1].nbytes for array in inputs.values())


def _repeated(golden: Golden, rows: int) -> dict[str, Array]:
    for name, array in golden.inputs.items():
        if not array.ndim or not array.size:
            raise ModelLoadError(f"golden input {name!r}: expected rows, got shape {array.shape}")
    return {name: array[np.arange(rows) % len(array)] for name, array in golden.inputs.items()}
