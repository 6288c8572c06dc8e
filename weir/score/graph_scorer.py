"""Scoring with a single graph: tensors, texts and pictures.

A batch is as large as the model's batching policy allows. Rows of unequal lengths are sorted by
length within a part, so that a batch has little padding.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from weir.client.errors import UsageError
from weir.protocol.datatypes import DATATYPES
from weir.score.batching import (
    Failures,
    cut_by_length,
    cut_evenly,
    longest_first,
    score_rows,
    tasks_of,
)
from weir.score.binding import Binding, read_picture
from weir.score.outputs import (
    PROBABILITIES,
    TAG_PROBABILITIES,
    TAGS,
    BatchOutputs,
    ScoreColumn,
    choose,
    class_columns,
    tag_columns,
    tensor_column,
    token_column,
)
from weir.score.rows import Batch, Part, PreparedPart, Scores, one_array, part_rows
from weir.score.sources.lines import TEXT
from weir.score.sources.pictures import PICTURE
from weir.score.tensors import PartTensors
from weir.score.texts import SORTED_ROWS, Texts, texts_of
from weir.server.errors import InvalidRequest, ServerError, Unsupported
from weir.server.preprocessing import images
from weir.server.runtime import collate
from weir.server.runtime.collate import paddings_of
from weir.server.runtime.session import Session
from weir.server.runtime.session import version as onnxruntime_version
from weir.server.runtime.signature import Fit, TensorSpec, forms_of
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.served_model import ServedModel
from weir.server.tasks.text import scored_output

Array = NDArray[Any]
Inputs = Mapping[str, Array]

_FAILURES = Failures(
    refused=(InvalidRequest, Unsupported, collate.RowCountError), failed=(ServerError,)
)

_MAX_PART_ROWS = 8192
# Batches of a task: a thread runs them, then it builds columns, which costs as much for one as for
# many. A task of long texts takes a hundred times as long as one of short ones, so it has fewer.
_MAX_BLOCK_BATCHES, _TEXT_BATCHES = 64, 16
# The outputs of a task of blocks.
_MAX_OUTPUT_BYTES = 4 << 20
# Encoded pictures are in memory until they are scored.
_PICTURE_ROWS = 512


class GraphScorer:
    """A single graph; see `rows.Scorer`.

    Raises:
        UsageError: its rows cannot be told apart, or it has no such outputs.
    """

    def __init__(
        self,
        model: ServedModel,
        session: Session,
        digest: str,
        binding: Binding,
        *,
        outputs: Sequence[str],
        parallel: int,
        folder: Path,
    ) -> None:
        is_batched = model.scheduler.decision.is_batched and model.signature.has_rows
        rows = model.signature.max_rows if is_batched else 1
        self.run = GraphRun(model, session)
        self.parallel = parallel
        self._binding = binding
        self._policy = BatchPolicy(rows, max_tokens=model.policy.max_tokens)
        self._tokenizer = model.tokenizer
        self._preprocessing = model.contract.preprocessing if model.contract else None
        self._folder = folder
        self._specs = [
            spec for name, spec in model.signature.inputs.items() if name in binding.columns
        ]
        self._block_batches = _block_batches(model, rows)
        if not is_batched:
            _check_single_rows(model)
        columns, default = _columns_of(model, binding)
        self._columns = choose(columns, default, outputs)
        self.schema = pa.schema([(each.name, each.kind) for each in self._columns])
        self.part_rows = self._part_rows(rows)
        self.identity: Mapping[str, object] = {
            "model": digest,
            "provider": session.provider,
            "onnxruntime": onnxruntime_version(),
            "batch_rows": rows,
            "outputs": [each.name for each in self._columns],
        }

    def _part_rows(self, batch_rows: int) -> int:
        """Rows of a part: as many as `PART_BYTES` hold, in whole batches."""
        most, row_bytes = SORTED_ROWS, self._binding.row_bytes
        sizes = [_row_bytes(spec) for spec in self._specs]
        if self._binding.kind == "picture":
            most = _PICTURE_ROWS
        elif self._binding.kind == "tensors" and None not in sizes:
            most = _MAX_PART_ROWS
            row_bytes = sum(size for size in sizes if size is not None)
        rows = part_rows(most, row_bytes)
        return rows - rows % batch_rows if rows > batch_rows else rows

    def stop(self) -> None:
        """Nothing waits."""

    def prepare(self, part: Part) -> PreparedPart:
        """Cut a part into batches."""
        errors = dict(part.errors)
        if self._binding.kind == "text":
            batches = self._text_batches(part, errors)
        elif self._binding.kind == "picture":
            batches = self._picture_batches(part, errors)
        else:
            batches = self._tensor_batches(part, errors)
        return PreparedPart(part, batches, errors)

    def _text_batches(self, part: Part, errors: dict[int, str]) -> list[Batch]:
        if self._tokenizer is None:
            raise TypeError("expected a tokenizer")
        texts = texts_of(part, self._binding.columns[TEXT], self._tokenizer, errors)
        batches = cut_by_length(texts.lengths, self._policy)
        return [
            TextBatch(self.run, self._columns, texts, rows, self._policy)
            for rows in tasks_of(batches, _TEXT_BATCHES, self.parallel)
        ]

    def _picture_batches(self, part: Part, errors: dict[int, str]) -> list[Batch]:
        column = one_array(part, self._binding.columns[PICTURE])
        good = [position for position in range(len(column)) if position not in errors]
        return [
            PictureBatch(self, good[at : at + self._policy.max_rows], column)
            for at in range(0, len(good), self._policy.max_rows)
        ]

    def _tensor_batches(self, part: Part, errors: dict[int, str]) -> list[Batch]:
        """Batches of views of whole columns, or of rows that are read and checked one by one."""
        tensors = PartTensors(part, self._specs, self._binding)
        blocks = None if errors else tensors.blocks()
        if blocks is None:
            return self._cell_batches(part, tensors, errors)
        try:
            self.run.check_block(blocks, self._policy.max_rows)
        except InvalidRequest:
            return self._cell_batches(part, tensors, errors)
        batches = cut_evenly(slice(0, part.table.num_rows), self._policy.max_rows)
        return [
            BlockBatch(
                self.run,
                self._columns,
                range(rows.start, rows.stop),
                {name: array[rows] for name, array in blocks.items()},
                self._policy.max_rows,
            )
            for rows in tasks_of(batches, self._block_batches, self.parallel)
        ]

    def _cell_batches(
        self, part: Part, tensors: PartTensors, errors: dict[int, str]
    ) -> list[Batch]:
        by_key: dict[object, list[tuple[int, int, Inputs]]] = {}
        for position in range(part.table.num_rows):
            if position in errors:
                continue
            try:
                inputs = tensors.row(position)
                fit = self.run.check(inputs)
            except (ServerError, ValueError) as error:
                errors[position] = str(error)
            else:
                by_key.setdefault(fit.key, []).append((fit.length, position, inputs))
        return [batch for rows in by_key.values() for batch in self._cell_batches_of(rows)]

    def _cell_batches_of(self, rows: Sequence[tuple[int, int, Inputs]]) -> Iterator[Batch]:
        """Batches of the length, position and inputs of each row."""
        lengths = np.array([length for length, _, _ in rows])
        order = longest_first(lengths)
        for chosen in cut_by_length(lengths[order], self._policy):
            batch = [rows[number] for number in order[chosen].tolist()]
            positions = [position for _, position, _ in batch]
            yield CellBatch(self.run, self._columns, positions, [inputs for _, _, inputs in batch])

    def pixels(self, column: pa.Array, position: int) -> Array:
        """The picture of a row as the model takes it, (height, width, channels).

        Raises:
            ServerError, ValueError: it is none.
        """
        if self._preprocessing is None:
            raise TypeError("expected preprocessing")
        content = read_picture(column[position].as_py(), self._folder)
        return images.read_encoded(content, self._preprocessing)

    def score_pixels(self, pixels: Array) -> dict[str, pa.Array]:
        """The columns of some pictures (rows, height, width, channels)."""
        if self._preprocessing is None:
            raise TypeError("expected preprocessing")
        outputs = self.run.outputs([{self._preprocessing.input: pixels}])
        return build(self._columns, [BatchOutputs(each, {}) for each in outputs])


class GraphRun:
    """Runs a graph on checked inputs, padded as the server pads a batch. Any thread may call it."""

    def __init__(self, model: ServedModel, session: Session) -> None:
        self._session = session
        self._signature, self._rules = model.signature, model.rules
        self._paddings = paddings_of(model.contract, session.inputs, session.outputs)
        self.axes = list(model.contract.padded_axes) if model.contract else []

    def check(self, inputs: dict[str, Array]) -> Fit:
        """Check inputs, and add lengths that they lack.

        Raises:
            InvalidRequest: they do not fit.
        """
        fit = self._signature.admit(forms_of(inputs))
        self._check_values(inputs)
        return fit

    def check_block(self, inputs: dict[str, Array], batch_rows: int) -> None:
        """`check` for rows of one shape that will be run in batches of `batch_rows`."""
        rows = len(next(iter(inputs.values())))
        last = rows - 1 - (rows - 1) % batch_rows
        for start in {0, last}:
            batch = {name: array[start : start + batch_rows] for name, array in inputs.items()}
            self._signature.admit(forms_of(batch))
        self._check_values(inputs)

    def _check_values(self, inputs: dict[str, Array]) -> None:
        self._rules.complete(inputs)
        self._rules.check(inputs)

    def cast(self, inputs: Inputs) -> dict[str, Array]:
        """Inputs that a tokenizer made, in the graph's datatypes."""
        return self._signature.cast(inputs)

    def outputs(self, batches: Sequence[Inputs]) -> list[dict[str, Array]]:
        """The outputs of each batch.

        First all batches are run, then all outputs are checked: LeNet-5 is 3 % faster so than with
        a check after each run.

        Raises:
            ServerError: a run fails.
            RowCountError: an output has another number of rows.
        """
        run = self._session.run
        outputs = [run(inputs) for inputs in batches]
        for inputs, own in zip(batches, outputs, strict=True):
            collate.check_rows(own, len(next(iter(inputs.values()))))
        return outputs

    def joined(self, requests: Sequence[Inputs]) -> BatchOutputs:
        """The outputs of the rows of all requests, one below the other.

        A single request keeps its size: no other batch has to have it, as in a server.
        """
        counts = [len(next(iter(each.values()))) for each in requests]
        lengths = {
            axis: [
                size
                for count, request in zip(counts, requests, strict=True)
                for size in [padding.size_of(request)] * count
            ]
            for axis, padding in zip(self.axes, self._paddings, strict=True)
        }
        inputs = requests[0] if len(requests) == 1 else collate.join(requests, self._paddings)
        (outputs,) = self.outputs([inputs])
        return BatchOutputs(outputs, lengths)


def build(columns: Sequence[ScoreColumn], batches: Sequence[BatchOutputs]) -> dict[str, pa.Array]:
    """The columns of some batches."""
    return {column.name: column.build(batches) for column in columns}


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """Rows of fixed shape, views of whole columns, in batches of up to `batch_rows`."""

    run: GraphRun
    columns: Sequence[ScoreColumn]
    positions: Sequence[int]
    inputs: Inputs
    batch_rows: int

    def score(self) -> Scores:
        """Score the rows."""
        batches = cut_evenly(slice(0, len(self.positions)), self.batch_rows)
        return score_rows(self.positions, _FAILURES, self._score, batches)

    def _score(self, rows: slice) -> Mapping[str, pa.Array]:
        outputs = self.run.outputs(
            [
                {name: array[batch] for name, array in self.inputs.items()}
                for batch in cut_evenly(rows, self.batch_rows)
            ]
        )
        return build(self.columns, [BatchOutputs(each, {}) for each in outputs])


@dataclass(frozen=True, slots=True)
class CellBatch:
    """Rows of any shape, each with arrays of its own."""

    run: GraphRun
    columns: Sequence[ScoreColumn]
    positions: Sequence[int]
    inputs: Sequence[Inputs]

    def score(self) -> Scores:
        """Score the rows."""
        return score_rows(
            self.positions,
            _FAILURES,
            lambda rows: build(self.columns, [self.run.joined(self.inputs[rows])]),
        )


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """Encoded pictures, which are decoded when the batch is scored."""

    scorer: GraphScorer
    positions: Sequence[int]
    column: pa.Array

    def score(self) -> Scores:
        """Decode and score the pictures."""
        pixels, good, errors = [], [], {}
        for position in self.positions:
            try:
                pixels.append(self.scorer.pixels(self.column, position))
                good.append(position)
            except (ServerError, ValueError) as error:
                errors[position] = str(error)
        if not good:
            return Scores([], {}, errors)
        rows = np.stack(pixels)
        scores = score_rows(good, _FAILURES, lambda chosen: self.scorer.score_pixels(rows[chosen]))
        return Scores(scores.positions, scores.columns, {**errors, **scores.errors})


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Some texts of a part, in batches of similar lengths."""

    run: GraphRun
    columns: Sequence[ScoreColumn]
    texts: Texts
    rows: slice
    policy: BatchPolicy

    def score(self) -> Scores:
        """Score the texts."""
        positions = self.texts.positions[self.rows].tolist()
        batches = cut_by_length(self.texts.lengths[self.rows], self.policy)
        return score_rows(positions, _FAILURES, self._score, batches)

    def _score(self, rows: slice) -> Mapping[str, pa.Array]:
        first = self.rows.start + rows.start
        lengths = self.texts.lengths[first : self.rows.start + rows.stop]
        batches = [
            slice(first + batch.start, first + batch.stop)
            for batch in cut_by_length(lengths, self.policy)
        ]
        outputs = self.run.outputs([self.run.cast(self.texts.inputs(batch)) for batch in batches])
        return build(
            self.columns,
            [
                BatchOutputs(
                    own,
                    dict.fromkeys(self.run.axes, self.texts.lengths[batch]),
                    self.texts.tokens(batch),
                )
                for batch, own in zip(batches, outputs, strict=True)
            ],
        )


def _check_single_rows(model: ServedModel) -> None:
    """UsageError unless each tensor has a first axis that may be that of one row."""
    signature = model.signature
    for spec in (*signature.inputs.values(), *signature.outputs.values()):
        if not spec.axes or (isinstance(spec.axes[0], int) and spec.axes[0] != 1):
            raise UsageError(
                f"model {model.name!r}: expected rows on the first axis of every tensor, "
                f"{spec.name!r} has the shape {list(spec.wire_shape())}"
            )


def _columns_of(model: ServedModel, binding: Binding) -> tuple[list[ScoreColumn], list[str]]:
    """Every column that a model can give, and the names of the default ones."""
    signature, contract = model.signature, model.contract
    tensors = [
        tensor_column(spec) for spec in signature.outputs.values() if spec.has_shape and spec.axes
    ]
    task = contract.task if contract else ""
    if task == "tagging":
        output = scored_output(model, ("batch", "time", "tags"))
        axis = str(signature.outputs[output].axes[1])
        tags = tag_columns(output, axis, model.labels.get(output) or ())
        tokens = [token_column()] if binding.kind == "text" else []
        return [*tokens, *tags, *tensors], [
            *(each.name for each in tokens),
            TAGS,
            TAG_PROBABILITIES,
        ]
    labelled = _labelled_output(model)
    if labelled is None:
        return tensors, [each.name for each in tensors]
    classes = class_columns(labelled, model.labels.get(labelled) or ())
    return [*classes, *tensors], [each.name for each in classes]


def _labelled_output(model: ServedModel) -> str | None:
    """The output (rows, classes) that says the class of a row."""
    contract = model.contract
    if contract is not None and contract.preprocessing is not None:
        return contract.preprocessing.output
    if contract is not None and contract.task == "sequence-classification":
        return scored_output(model, ("batch", "classes"))
    found = [
        name
        for name in sorted(model.labels, key=lambda name: name != PROBABILITIES)
        if name in model.signature.outputs and len(model.signature.outputs[name].axes) == 2
    ]
    return found[0] if found else None


def _block_batches(model: ServedModel, rows: int) -> int:
    """The batches of a task of blocks, whose outputs are held together."""
    sizes = [_row_bytes(spec) for spec in model.signature.outputs.values()]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return _TEXT_BATCHES
    return max(1, min(_MAX_BLOCK_BATCHES, _MAX_OUTPUT_BYTES // max(1, rows * sum(known))))


def _row_bytes(spec: TensorSpec) -> int | None:
    """Bytes of a row of a tensor; None if rows differ."""
    own = [axis for axis in spec.axes[1:] if isinstance(axis, int)]
    if len(own) < len(spec.axes[1:]) or spec.datatype == "BYTES" or not spec.has_shape:
        return None
    return math.prod(own) * DATATYPES[spec.datatype].dtype.itemsize
