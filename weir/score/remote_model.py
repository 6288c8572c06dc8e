"""A served model that scores rows by calls, several in flight.

Rules:
- The version that answers at the start scores every row, also after a reload.
- A full queue delays the calls; it fails none.
- A row that the server refuses has an error. Any other failure ends the run, which can be resumed.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from weir.client.client import Client
from weir.client.errors import InvalidArgument, OutOfRange, ResourceExhausted, UsageError
from weir.client.generation import Beam
from weir.client.results import Class, TensorMetadata
from weir.evaluate.model_description import ModelDescription, of_config
from weir.score.batching import Failures, score_rows
from weir.score.binding import Binding, ModelInputs, read_picture
from weir.score.errors import ScoringFailed
from weir.score.generation_scorer import SCORE
from weir.score.outputs import (
    LABEL,
    PROBABILITIES,
    PROBABILITY,
    TAG_PROBABILITIES,
    TAGS,
    TOKENS,
    BatchOutputs,
    ScoreColumn,
    choose,
    class_columns,
    tensor_column,
)
from weir.score.rows import Batch, Part, PreparedPart, Scores, one_array, part_rows
from weir.score.sources.lines import TEXT
from weir.score.tensors import PartTensors
from weir.score.texts import null_in
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]
Result = TypeVar("Result")

_FAILURES = Failures(refused=(InvalidArgument, OutOfRange, ResourceExhausted))
_PART_ROWS = 2048
_MAX_REQUEST_ROWS = 32
_REQUEST_BYTES = 4 << 20
# A queue that stays full for longer is a server that is too small for its other callers.
_MAX_WAIT_S = 300.0
_WAIT_S = 0.05

_TEXT_TASKS = ("sequence-classification", "tagging", "sequence-to-sequence")


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model of a server.

    Attributes:
        version: that scores every row.
        max_rows: of a request; 1 if requests have no rows.
    """

    client: Client
    name: str
    version: str
    task: str
    description: ModelDescription
    input_specs: Sequence[TensorSpec]
    output_specs: Sequence[TensorSpec]
    max_rows: int

    def inputs(self) -> ModelInputs:
        """What it can read."""
        contract = self.description.contract
        lengths = (
            {axis.length_input for axis in contract.padded_axes.values()} if contract else set()
        )
        is_pair = self.task == "sequence-to-sequence"
        return ModelInputs(
            self.name,
            [] if is_pair else [spec for spec in self.input_specs if spec.name not in lengths],
            [] if is_pair else [spec for spec in self.input_specs if spec.name in lengths],
            takes_texts=self.task in _TEXT_TASKS
            and contract is not None
            and contract.tokenisation is not None,
            takes_pictures=contract is not None and contract.preprocessing is not None,
        )

    def scorer(
        self,
        binding: Binding,
        *,
        outputs: Sequence[str],
        parallel: int,
        beam_width: int,
        folder: Path,
    ) -> "RemoteScorer":
        """The model as a scorer of the bound columns; see `LocalModel.scorer`."""
        if beam_width > 1 and self.task != "sequence-to-sequence":
            raise UsageError(f"--beam-width: expected an encoder-decoder, got {self.name!r}")
        return RemoteScorer(
            self, binding, outputs, parallel=parallel, width=beam_width, folder=folder
        )


def connect(client: Client, name: str, version: str) -> RemoteModel:
    """The model of a server, and the version that answers now.

    Raises:
        UsageError: it is not ready.
        CallError: a call failed.
    """
    metadata = client.metadata(name, version)
    config = client.config(name, version).config
    known = {model.name: model for model in client.models()}
    model = known.get(name)
    if model is None or not model.answering:
        raise UsageError(f"model {name!r}: expected one that is ready, got {', '.join(known)}")
    number = _number(model.answering, version, metadata.versions)
    description = of_config(config)
    has_rows = config.max_batch_size > 0
    return RemoteModel(
        client,
        name,
        number,
        model.task,
        description,
        [_spec(tensor) for tensor in metadata.inputs],
        [_spec(tensor) for tensor in metadata.outputs],
        min(config.max_batch_size, _MAX_REQUEST_ROWS) if has_rows else 1,
    )


def _number(answering: str, version: str, known: Sequence[str]) -> str:
    """The number of the version; metadata of a label has that of its version first."""
    if not version:
        return answering
    return version if version in known or not known else known[0]


def _spec(tensor: TensorMetadata) -> TensorSpec:
    return TensorSpec(
        tensor.name, tensor.datatype, tuple(None if size < 0 else size for size in tensor.shape)
    )


class RemoteScorer:
    """A model of a server; see `rows.Scorer`."""

    def __init__(
        self,
        model: RemoteModel,
        binding: Binding,
        outputs: Sequence[str],
        *,
        parallel: int,
        width: int,
        folder: Path,
    ) -> None:
        self._model = model
        self._binding = binding
        self._folder = folder
        self._width = width
        self._stopped = threading.Event()
        self.parallel = parallel
        self.part_rows = part_rows(_PART_ROWS, binding.row_bytes)
        # A request of large rows has fewer, so that it is no message that the server refuses.
        largest = max(1, _REQUEST_BYTES // max(1, binding.row_bytes))
        self._request_rows = min(model.max_rows, largest)
        self._specs = [spec for spec in model.input_specs if spec.name in binding.columns]
        self._columns = _columns_of(model, binding, outputs)
        self.schema = pa.schema([(each.name, each.kind) for each in self._columns])
        self.identity: Mapping[str, object] = {
            "model": f"{model.name} version {model.version}",
            "outputs": self.schema.names,
            "beam_width": width,
        }

    def prepare(self, part: Part) -> PreparedPart:
        """Cut a part into requests."""
        errors = dict(part.errors)
        if self._binding.kind == "tensors":
            return PreparedPart(part, self._tensor_batches(part, errors), errors)
        column = one_array(part, next(iter(self._binding.columns.values())))
        values = column.to_pylist()
        good = [position for position in range(len(values)) if position not in errors]
        for position in good:
            if reason := null_in(values[position], self._binding.kind):
                errors[position] = reason
        good = [position for position in good if position not in errors]
        rows = 1 if self._model.task == "sequence-to-sequence" else self._request_rows
        call = self._call_of()
        batches: list[Batch] = [
            CallBatch(chosen, [values[position] for position in chosen], call)
            for chosen in (good[at : at + rows] for at in range(0, len(good), rows))
        ]
        return PreparedPart(part, batches, errors)

    def _tensor_batches(self, part: Part, errors: dict[int, str]) -> list[Batch]:
        tensors = PartTensors(part, self._specs, self._binding)
        blocks = None if errors or self._request_rows == 1 else tensors.blocks()
        rows, step = part.table.num_rows, self._request_rows
        if blocks is not None:
            return [
                InferBatch(
                    self,
                    range(at, min(at + step, rows)),
                    {name: array[at : at + step] for name, array in blocks.items()},
                )
                for at in range(0, rows, step)
            ]
        batches: list[Batch] = []
        for position in range(rows):
            if position in errors:
                continue
            try:
                batches.append(InferBatch(self, [position], tensors.row(position)))
            except ValueError as error:
                errors[position] = str(error)
        return batches

    def stop(self) -> None:
        """Let calls that wait for a full queue fail."""
        self._stopped.set()

    def _retry_while_full(self, call: Callable[[], Result]) -> Result:
        """The result of a call; while the server's queue is full, it is made again later."""
        end_s = time.monotonic() + _MAX_WAIT_S
        while True:
            try:
                return call()
            except ResourceExhausted as error:
                # Without a pause it is no full queue: a message is too large, or memory is short.
                pause_s = error.retry_after_s
                if pause_s is None:
                    raise
                if time.monotonic() > end_s:
                    # Of the server and not of the rows, which would get errors for it.
                    raise ScoringFailed(f"full for {_MAX_WAIT_S:.0f} s: {error}") from error
            if self._stopped.wait(max(pause_s, _WAIT_S)):
                raise ScoringFailed("the run has ended")

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, pa.Array]:
        """The columns of one request's rows."""
        model = self._model
        answer = self._retry_while_full(
            lambda: model.client.infer(model.name, inputs, version=model.version)
        )
        batches = [BatchOutputs(answer.outputs, {})]
        return {column.name: column.build(batches) for column in self._columns}

    def _call_of(self) -> Callable[[Sequence[Any]], dict[str, pa.Array]]:
        calls = {
            "tagging": self._tag,
            "sequence-classification": self._classify_text,
            "sequence-to-sequence": self._generate,
        }
        call = self._classify if self._binding.kind == "picture" else calls[self._model.task]

        def run(values: Sequence[Any]) -> dict[str, pa.Array]:
            found = self._retry_while_full(lambda: call(values))
            return {name: found[name] for name in self.schema.names}

        return run

    def _tag(self, texts: Sequence[Any]) -> dict[str, pa.Array]:
        model = self._model
        tagged = model.client.tag(model.name, texts, version=model.version)
        return {
            TOKENS: pa.array(
                [[token.text for token in row] for row in tagged], pa.list_(pa.string())
            ),
            TAGS: pa.array([[token.tag for token in row] for row in tagged], pa.list_(pa.string())),
            TAG_PROBABILITIES: pa.array(
                [[token.probability for token in row] for row in tagged], pa.list_(pa.float32())
            ),
        }

    def _classify_text(self, texts: Sequence[Any]) -> dict[str, pa.Array]:
        model = self._model
        found = model.client.classify_text(model.name, texts, top=1, version=model.version)
        return _best([each.classes for each in found])

    def _classify(self, pictures: Sequence[Any]) -> dict[str, pa.Array]:
        model = self._model
        contents = [self._content(picture) for picture in pictures]
        return _best(model.client.classify(model.name, contents, top=1, version=model.version))

    def _content(self, value: object) -> bytes:
        try:
            return read_picture(value, self._folder)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None

    def _generate(self, texts: Sequence[Any]) -> dict[str, pa.Array]:
        model, width = self._model, self._width
        (text,) = texts
        search = Beam(width) if width > 1 else None
        result = model.client.generate(
            model.name, text, search=search, version=model.version
        ).result()
        best = result.hypotheses[0]
        return {
            TEXT: pa.array([best.text], pa.string()),
            SCORE: pa.array([best.score], pa.float32()),
        }


def _best(rows: Sequence[Sequence[Class]]) -> dict[str, pa.Array]:
    return {
        LABEL: pa.array([row[0].label or str(row[0].index) for row in rows], pa.string()),
        PROBABILITY: pa.array([row[0].score for row in rows], pa.float32()),
    }


def _columns_of(model: RemoteModel, binding: Binding, wanted: Sequence[str]) -> list[ScoreColumn]:
    """The columns of the scores; those of a task are built from its answers."""

    def by_call(name: str, kind: pa.DataType) -> ScoreColumn:
        return ScoreColumn(name, kind, lambda _: pa.array([], kind))

    classes = [by_call(LABEL, pa.string()), by_call(PROBABILITY, pa.float32())]
    texts = {
        "tagging": [
            by_call(TOKENS, pa.list_(pa.string())),
            by_call(TAGS, pa.list_(pa.string())),
            by_call(TAG_PROBABILITIES, pa.list_(pa.float32())),
        ],
        "sequence-classification": classes,
        "sequence-to-sequence": [by_call(TEXT, pa.string()), by_call(SCORE, pa.float32())],
    }
    if binding.kind == "picture":
        known = default = classes
    elif binding.kind == "text":
        known = default = texts[model.task]
    else:
        tensors = [tensor_column(spec) for spec in model.output_specs if spec.axes]
        labels = {
            spec.name: model.description.labels[spec.name]
            for spec in sorted(model.output_specs, key=lambda spec: spec.name != PROBABILITIES)
            if len(spec.axes) == 2 and model.description.labels.get(spec.name)
        }
        found = [class_columns(name, names) for name, names in labels.items()]
        known = [*(found[0] if found else []), *tensors]
        default = found[0] if found else tensors
    return choose(known, [each.name for each in default], wanted)


@dataclass(frozen=True, slots=True)
class InferBatch:
    """One request of tensors."""

    scorer: RemoteScorer
    positions: Sequence[int]
    inputs: Mapping[str, Array]

    def score(self) -> Scores:
        """Make the request."""
        return score_rows(
            self.positions,
            _FAILURES,
            lambda rows: self.scorer.infer(
                {name: np.asarray(array[rows]) for name, array in self.inputs.items()}
            ),
        )


@dataclass(frozen=True, slots=True)
class CallBatch:
    """One task call of pictures or texts."""

    positions: Sequence[int]
    values: Sequence[Any]
    call: Callable[[Sequence[Any]], dict[str, pa.Array]]

    def score(self) -> Scores:
        """Make the call."""
        return score_rows(self.positions, _FAILURES, lambda rows: self.call(self.values[rows]))
