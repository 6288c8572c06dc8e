"""Runs before the first request, so that it finds memory and kernels in place.

Where rows have one size: every batch size the scheduler will cut, doubled up to the largest. Where they
differ in length: one row and a full batch at each doubled length, up to the first that holds the longest
recorded row, for two seconds at most. The lengths in between need nothing that the next longer one did not
(`session`), and to hold memory for full batches of the longest rows allowed would be waste: of a tagger,
720 MB for 512 tokens, 140 for 64.
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
from weir.server.repository.golden_test import Files
from weir.server.runtime import collate
from weir.server.runtime.collate import Padding
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Signature
from weir.server.scheduling.batching import BatchPolicy

logger = logging.getLogger(__name__)

Array = NDArray[Any]

_LEAST_LENGTH = 8
_MOST_S = 2.0
# Of a batch's inputs: a graph may name any size, and a contract any number of rows.
_MOST_BYTES = 1 << 28


def warm_up(
    session: Session,
    signature: Signature,
    files: Files,
    *,
    name: str,
    policy: BatchPolicy,
    paddings: Sequence[Padding] = (),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run a model on recorded inputs, or on zeros where all axes but the rows' are fixed.

    Raises:
        ServerError: of a bundle; of a plain model, zeros may be no values for it.
        OutOfMemory: of any model.
    """
    has_lengths = files.golden is not None and any(padding.lengths for padding in paddings)
    try:
        if files.golden is not None and has_lengths:
            _run_lengths(session, files.golden, policy, paddings, clock)
        else:
            _run_rows(session, signature, files.golden, paddings)
    except ServerError as error:
        if files.contract is not None or isinstance(error, OutOfMemory):
            raise
        logger.warning("warm-up failed model=%s reason=%s", name, error)


def _run_rows(
    session: Session, signature: Signature, golden: Golden | None, paddings: Sequence[Padding]
) -> None:
    rows = 1
    while True:
        inputs = _inputs(signature, golden, rows)
        if inputs is None:
            return
        session.run(collate.join([inputs], paddings))
        if rows >= signature.max_rows:
            return
        rows = min(2 * rows, signature.max_rows)


def _run_lengths(
    session: Session,
    golden: Golden,
    policy: BatchPolicy,
    paddings: Sequence[Padding],
    clock: Callable[[], float],
) -> None:
    """Doubled lengths, until the next would be too much: it takes twice as long as the last."""
    started_s = now = clock()
    for length in _lengths(golden, paddings):
        most = policy.max_rows if policy.max_tokens is None else policy.max_tokens // length
        # A row is repeated as it was recorded, then stretched.
        stretched = _stretched(_repeated(golden, 1), paddings, length)
        row_bytes = max(_row_bytes(golden.inputs), _row_bytes(stretched))
        most = min(policy.max_rows, most, _MOST_BYTES // row_bytes)
        for rows in (1, max(1, most)):
            inputs = _stretched(_repeated(golden, rows), paddings, length)
            session.run(collate.join([inputs], paddings))
        last_s, now = clock() - now, clock()
        if now - started_s + 2 * last_s > _MOST_S:
            return


def _lengths(golden: Golden, paddings: Sequence[Padding]) -> Iterator[int]:
    counted = [padding for padding in paddings if padding.lengths is not None]
    longest = max(padding.size_of(golden.inputs) for padding in counted)
    most = max(padding.maximum for padding in counted)
    length = min(_LEAST_LENGTH, most)
    while True:
        yield length
        if length >= longest:
            return
        length = min(2 * length, most)


def _stretched(
    inputs: Mapping[str, Array], paddings: Sequence[Padding], length: int
) -> dict[str, Array]:
    """The same rows, cut or repeated to another length, and full."""
    stretched = dict(inputs)
    for padding in paddings:
        if padding.lengths is None:
            continue
        size = min(length, padding.maximum)
        for name, positions in padding.inputs.items():
            for position in positions:
                array = stretched[name]
                places = np.arange(size) % array.shape[position]
                stretched[name] = array.take(places, axis=position)
        stretched[padding.lengths] = np.full_like(stretched[padding.lengths], size)
    return stretched


def _inputs(signature: Signature, golden: Golden | None, rows: int) -> dict[str, Array] | None:
    """Recorded inputs, repeated to so many rows, or zeros where all other axes are fixed.

    None where there are no zeros to make, or more bytes than a warm-up is worth.
    """
    if golden is not None:
        if not signature.has_rows:
            return dict(golden.inputs)
        is_small = rows * _row_bytes(golden.inputs) <= _MOST_BYTES
        return _repeated(golden, rows) if is_small else None
    inputs: dict[str, Array] = {}
    left_bytes = _MOST_BYTES
    for spec in signature.inputs.values():
        axes = (rows, *spec.axes[1:]) if signature.has_rows else spec.axes
        if not all(isinstance(axis, int) for axis in axes):
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
