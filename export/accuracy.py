"""Accuracy of a graph before and after INT8 quantisation, and the limit on its drop."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Quantisation
from weir.export import runtime
from weir.export.errors import AccuracyError, ExportError

DEFAULT_MAX_DROP = 1.0
"""Percentage points of accuracy."""

NO_ANSWER = -100
"""Marks a step without an answer: one beyond a row's length."""

Array = NDArray[Any]


def measure(
    model: bytes, batches: Iterable[Mapping[str, Array]], answers: NDArray[np.int64], output: str
) -> float:
    """Accuracy of a graph: the share of answers that equal its argmax along the last axis.

    Args:
        model: an ONNX file.
        batches: all rows in order; each batch is as wide as its own longest row, or wider.
        answers: (rows,), or (rows, steps) with NO_ANSWER beyond a row's length.
        output: the name of the scores, (rows of a batch, …, classes).
    """
    session = runtime.open_session(model)
    correct = total = first = 0
    for inputs in batches:
        (scores,) = session.run([output], dict(inputs))
        predicted = scores.argmax(axis=-1)  # (rows,) or (rows, steps)
        expected = answers[first : first + len(predicted)]
        # A narrow batch has fewer steps; those left out hold no answers of its rows.
        expected = expected[(slice(None), *map(slice, predicted.shape[1:]))]
        is_answer = expected != NO_ANSWER
        correct += int((predicted == expected)[is_answer].sum())
        total += int(is_answer.sum())
        first += len(predicted)
    if not total:
        raise ExportError("int8: expected answers to measure accuracy by, got none")
    return correct / total


def check_drop(cost: Quantisation, max_drop: float) -> None:
    """Raise AccuracyError if accuracy fell by more than `max_drop` percentage points."""
    drop = 100.0 * (cost.before - cost.after)
    # The subtraction itself may add a millionth of a point.
    if drop > max_drop + 1e-6:
        raise AccuracyError(
            f"int8: accuracy falls from {cost.before:.2%} to {cost.after:.2%} on "
            f"{cost.test_rows:,} {cost.test}, by {drop:.2f} points, allowed are {max_drop:g} "
            "(--max-accuracy-drop); nothing was published"
        )
