"""What INT8 costs, measured in answers: what else a changed number does is nobody's concern."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Quantisation
from weir.export import runtime
from weir.export.errors import AccuracyError, ExportError

DEFAULT_MAX_DROP = 1.0
"""Points of accuracy, that is percent of the answers."""

NO_ANSWER = -100
"""Stands where there is nothing to be answered: beyond a row's length."""

Array = NDArray[Any]


def measure(
    model: bytes, batches: Iterable[Mapping[str, Array]], answers: NDArray[np.int64], output: str
) -> float:
    """The share of answers that a graph gets right, by the greatest value along the last axis.

    Args:
        model: an ONNX file.
        batches: of all rows, in their order; each as wide as it likes, if it holds its own rows.
        answers: (rows,), or (rows, steps) with NO_ANSWER beyond a row's length.
        output: (rows of a batch, …, classes).

    Raises:
        ExportError: there is nothing to be answered.
    """
    session = runtime.open_session(model)
    correct = asked = first = 0
    for inputs in batches:
        (scores,) = session.run([output], dict(inputs))
        guesses = scores.argmax(axis=-1)  # (rows,) or (rows, steps)
        wanted = answers[first : first + len(guesses)]
        # Steps that a narrow batch left out hold no answer of its rows.
        wanted = wanted[(slice(None), *map(slice, guesses.shape[1:]))]
        is_asked = wanted != NO_ANSWER
        correct += int((guesses == wanted)[is_asked].sum())
        asked += int(is_asked.sum())
        first += len(guesses)
    if not asked:
        raise ExportError("int8: expected answers to be judged by, got none")
    return correct / asked


def check_drop(cost: Quantisation, max_drop: float) -> None:
    """Raise AccuracyError if more than `max_drop` points were lost."""
    drop = 100.0 * (cost.before - cost.after)
    # A millionth of a point: what the subtraction may add by itself.
    if drop > max_drop + 1e-6:
        raise AccuracyError(
            f"int8: accuracy falls from {cost.before:.2%} to {cost.after:.2%} on "
            f"{cost.test_rows:,} {cost.test}, by {drop:.2f} points, allowed are {max_drop:g} "
            "(--max-accuracy-drop); nothing was published"
        )
