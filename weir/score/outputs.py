"""Score columns: a batch's outputs → the columns that were asked for. Pure.

    label, probability      the likeliest class of a row, of an output with labels
    tags, tag_probabilities the likeliest tag of each token, of a tagger
    any output of the model its values, in lists of its shape

By default a classifier gives the first two, a tagger the tokens and their tags, and another model
all its outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from weir.client.errors import UsageError
from weir.score import columns as cells
from weir.server.runtime.signature import TensorSpec
from weir.server.tasks.text import probabilities_of

Array = NDArray[Any]

LABEL, PROBABILITY = "label", "probability"
TOKENS, TAGS, TAG_PROBABILITIES = "tokens", "tags", "tag_probabilities"
PROBABILITIES = "probabilities"
"""The name of an output."""


@dataclass(frozen=True, slots=True)
class BatchOutputs:
    """The outputs of a batch.

    Attributes:
        outputs: (rows, …) each, padded along the axes of `lengths`.
        lengths: the own size of each row along an output's axes, by the axes' names.
        tokens: the tokens of each row, where texts were tokenized here.
    """

    outputs: Mapping[str, Array]
    lengths: Mapping[str, Sequence[int]]
    tokens: Sequence[Sequence[str]] = ()


Build = Callable[[BatchOutputs], pa.Array]
"""Makes a column of a batch's outputs."""


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """A column of the scores.

    Attributes:
        build: called once for each batch.
    """

    name: str
    kind: pa.DataType
    build: Build


def choose(
    known: Sequence[ScoreColumn], default: Sequence[str], wanted: Sequence[str]
) -> list[ScoreColumn]:
    """The columns with the wanted names, or the default ones.

    Raises:
        UsageError: a name is unknown.
    """
    by_name = {column.name: column for column in reversed(known)}
    if strays := [name for name in wanted if name not in by_name]:
        listed = ", ".join(dict.fromkeys(column.name for column in known))
        raise UsageError(f"--outputs {strays[0]}: expected one of {listed}")
    return [by_name[name] for name in dict.fromkeys(wanted or default)]


def tensor_column(spec: TensorSpec) -> ScoreColumn:
    """The values of an output."""
    kind = cells.cell_type(spec, spec.axes[1:])
    return ScoreColumn(spec.name, kind, partial(_tensor, spec, kind))


def class_columns(output: str, labels: Sequence[str]) -> list[ScoreColumn]:
    """The likeliest class of each row of an output (rows, classes)."""
    return [
        ScoreColumn(LABEL, pa.string(), partial(_class_labels, output, labels)),
        ScoreColumn(PROBABILITY, pa.float32(), partial(_class_probabilities, output)),
    ]


def tag_columns(output: str, axis: str, labels: Sequence[str]) -> list[ScoreColumn]:
    """The likeliest tag of each token of an output (rows, `axis`, tags)."""
    return [
        ScoreColumn(TAGS, pa.list_(pa.string()), partial(_tags, output, axis, labels)),
        ScoreColumn(
            TAG_PROBABILITIES, pa.list_(pa.float32()), partial(_tag_probabilities, output, axis)
        ),
    ]


def token_column() -> ScoreColumn:
    """The tokens of each text."""
    return ScoreColumn(TOKENS, pa.list_(pa.string()), _tokens)


def _tensor(spec: TensorSpec, kind: pa.DataType, batch: BatchOutputs) -> pa.Array:
    array = batch.outputs[spec.name]
    cut = {
        position: batch.lengths[axis]
        for position, axis in enumerate(spec.axes)
        if isinstance(axis, str) and axis in batch.lengths
    }
    if not cut:
        return cells.to_column(array, kind)
    rows = []
    for row in range(len(array)):
        own: list[slice] = [slice(row, row + 1), *([slice(None)] * (array.ndim - 1))]
        for position, lengths in cut.items():
            own[position] = slice(lengths[row])
        rows.append(cells.to_column(array[tuple(own)], kind))
    return pa.concat_arrays(rows) if rows else pa.array([], kind)


def _class_labels(output: str, labels: Sequence[str], batch: BatchOutputs) -> pa.Array:
    return cells.labels_of(batch.outputs[output].argmax(axis=-1), labels)


def _class_probabilities(output: str, batch: BatchOutputs) -> pa.Array:
    likely = probabilities_of(output, batch.outputs[output]).max(axis=-1)
    return pa.array(likely.astype(np.float32, copy=False))


def _tags(output: str, axis: str, labels: Sequence[str], batch: BatchOutputs) -> pa.Array:
    lengths = batch.lengths[axis]
    best = batch.outputs[output].argmax(axis=-1)  # (rows, tokens)
    return cells.lists_of(cells.labels_of(best[_real(best, lengths)], labels), lengths)


def _tag_probabilities(output: str, axis: str, batch: BatchOutputs) -> pa.Array:
    lengths, scores = batch.lengths[axis], batch.outputs[output]
    likely = probabilities_of(output, scores[_real(scores, lengths)]).max(axis=-1)
    return cells.lists_of(pa.array(likely.astype(np.float32, copy=False)), lengths)


def _real(array: Array, lengths: Sequence[int]) -> NDArray[np.bool_]:
    """Which entries (rows, tokens) are no padding."""
    real: NDArray[np.bool_] = np.arange(array.shape[1]) < np.asarray(lengths)[:, None]
    return real


def _tokens(batch: BatchOutputs) -> pa.Array:
    return pa.array([list(each) for each in batch.tokens], pa.list_(pa.string()))
