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
from weir.server.tasks.text import greatest_probability_of

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
        tokens: a list of the tokens of each row, where texts were tokenized here.
    """

    outputs: Mapping[str, Array]
    lengths: Mapping[str, Sequence[int] | NDArray[np.intp]]
    tokens: pa.Array | None = None


Build = Callable[[Sequence[BatchOutputs]], pa.Array]
"""Makes a column of the outputs of batches, one after the other."""


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """A column of the scores.

    Attributes:
        build: called once for many batches, as each call of Arrow costs some microseconds.
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
        ScoreColumn(LABEL, pa.string(), partial(_class_labels, output, _texts(labels))),
        ScoreColumn(PROBABILITY, pa.float32(), partial(_class_probabilities, output)),
    ]


def tag_columns(output: str, axis: str, labels: Sequence[str]) -> list[ScoreColumn]:
    """The likeliest tag of each token of an output (rows, `axis`, tags)."""
    return [
        ScoreColumn(TAGS, pa.list_(pa.string()), partial(_tags, output, axis, _texts(labels))),
        ScoreColumn(
            TAG_PROBABILITIES, pa.list_(pa.float32()), partial(_tag_probabilities, output, axis)
        ),
    ]


def _texts(labels: Sequence[str]) -> pa.Array:
    """Labels as a column, made once: the first such call of a process imports pandas (0.35 s)."""
    return pa.array(labels, pa.string())


def token_column() -> ScoreColumn:
    """The tokens of each text."""
    return ScoreColumn(TOKENS, pa.list_(pa.string()), _tokens)


def _tensor(spec: TensorSpec, kind: pa.DataType, batches: Sequence[BatchOutputs]) -> pa.Array:
    parts = [part for batch in batches for part in _own_parts(spec, batch)]
    return pa.concat_arrays([cells.to_column(part, kind) for part in parts])


def _own_parts(spec: TensorSpec, batch: BatchOutputs) -> list[Array]:
    """An output in as few parts as have one shape: whole, or a part a row without its padding."""
    array = batch.outputs[spec.name]
    cut = {
        position: batch.lengths[axis]
        for position, axis in enumerate(spec.axes)
        if isinstance(axis, str) and axis in batch.lengths
    }
    if not cut:
        return [array]
    parts = []
    for row in range(len(array)):
        own: list[slice] = [slice(row, row + 1), *([slice(None)] * (array.ndim - 1))]
        for position, lengths in cut.items():
            own[position] = slice(lengths[row])
        parts.append(array[tuple(own)])
    return parts


def _class_labels(output: str, labels: pa.Array, batches: Sequence[BatchOutputs]) -> pa.Array:
    return cells.labels_of(_joined(output, batches).argmax(axis=-1), labels)


def _class_probabilities(output: str, batches: Sequence[BatchOutputs]) -> pa.Array:
    likely = greatest_probability_of(output, _joined(output, batches))
    return pa.array(likely.astype(np.float32, copy=False))


def _tags(output: str, axis: str, labels: pa.Array, batches: Sequence[BatchOutputs]) -> pa.Array:
    best = _real_entries(output, axis, batches).argmax(axis=-1)
    return cells.lists_of(cells.labels_of(best, labels), _lengths(axis, batches))


def _tag_probabilities(output: str, axis: str, batches: Sequence[BatchOutputs]) -> pa.Array:
    likely = greatest_probability_of(output, _real_entries(output, axis, batches))
    values = pa.array(likely.astype(np.float32, copy=False))
    return cells.lists_of(values, _lengths(axis, batches))


def _joined(output: str, batches: Sequence[BatchOutputs]) -> Array:
    return np.concatenate([batch.outputs[output] for batch in batches])


def _real_entries(output: str, axis: str, batches: Sequence[BatchOutputs]) -> Array:
    """The entries (tokens, …) of an output (rows, tokens, …) that are no padding."""
    parts = []
    for batch in batches:
        array, lengths = batch.outputs[output], np.asarray(batch.lengths[axis])
        parts.append(array[np.arange(array.shape[1]) < lengths[:, None]])
    return np.concatenate(parts)


def _lengths(axis: str, batches: Sequence[BatchOutputs]) -> NDArray[np.intp]:
    return np.concatenate([batch.lengths[axis] for batch in batches])


def _tokens(batches: Sequence[BatchOutputs]) -> pa.Array:
    return pa.concat_arrays([batch.tokens for batch in batches if batch.tokens is not None])
