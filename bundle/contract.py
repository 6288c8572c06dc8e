"""Contract of a bundle, `model.json`: the facts that its graph does not contain.

Names, types and shapes of tensors are read from the ONNX graph and are not repeated here.
Parsing is strict: unknown keys, unknown formats and values of a wrong type are errors.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from weir.bundle import validation
from weir.bundle.decoding import Decoding, check_decoding
from weir.bundle.field_types import ContractObject, FileName, Index, NotNegative, Positive, Sha256
from weir.bundle.sequences import (
    PaddedAxis,
    Tokenisation,
    ValueRange,
    check_axes,
    check_tokenisation,
)

Column = Annotated[str, Field(min_length=1)]


class PredictionInterval(ContractObject):
    """Prediction interval of a forecast, from its errors on the validation part.

    A share of `level` of the measured values lies between forecast + `lower` and forecast +
    `upper`; each has a number for every step ahead, in the series' unit. With
    `is_relative`, `lower` and `upper` are multiplied by |forecast| first.
    """

    level: Annotated[float, Field(gt=0.0, lt=1.0)]
    lower: list[float]
    upper: list[float]
    is_relative: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if len(self.lower) != len(self.upper):
            raise ValueError(
                f"expected as many lower as upper numbers, got {len(self.lower)} "
                f"and {len(self.upper)}"
            )
        for step, (lower, upper) in enumerate(zip(self.lower, self.upper, strict=True), 1):
            if lower > upper:
                raise ValueError(
                    f"expected lower <= upper, got {lower:g} and {upper:g}, {step} steps ahead"
                )
        return self


class Series(ContractObject):
    """Columns, lags and horizon of a forecast, and its interval if one was measured."""

    input: str = "history"
    output: str = "forecast"
    target: Column
    exogenous: list[Column] = Field(default_factory=list)
    lags: Positive
    horizon: Positive
    season: Index | None = None
    interval: PredictionInterval | None = None

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        columns = [self.target, *self.exogenous]
        if len(set(columns)) < len(columns):
            raise ValueError(f"expected columns of different names, got {columns}")
        if self.interval is not None and len(self.interval.lower) != self.horizon:
            raise ValueError(
                f"expected an interval of {self.horizon} steps, got {len(self.interval.lower)}"
            )
        return self

    def check_shapes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise ValueError unless input and output have the shapes of the series, batch first."""
        columns = 1 + len(self.exogenous)
        for name, expected in ((self.input, (self.lags, columns)), (self.output, (self.horizon,))):
            found = tuple(shapes[name][1:]) if name in shapes else None
            if found != expected:
                raise ValueError(f"series: {name}: expected rows of shape {expected}, got {found}")


def check_series(task: str, series: Series | None) -> None:
    """Raise ValueError unless there is a series exactly if the task is forecasting."""
    if (task == "forecasting") != (series is not None):
        expected = "a series with" if series is None else "none without"
        raise ValueError(f"series: expected {expected} the task forecasting, got {task}")


class Sharing(ContractObject):
    """Parameters and connections of the trained network, for one row.

    A connection is one use of a weight or bias by an output unit. The exported graph may have other
    counts: it folds batch norms into convolutions and fills partial connections with zeros.
    """

    parameters: Positive
    connections: Positive


FILE_NAME = "model.json"
CONTRACT_PARAMETER = "weir.contract"
"""Parameter of a server's `ModelConfig`: the contract as JSON, without files and versions."""
LABELS_PARAMETER = "weir.labels."
"""Prefix of the parameter with the labels of one file, one a line."""
FORMAT: Literal[1] = 1

Task = Literal[
    "image-classification",
    "sequence-classification",
    "tagging",
    "sequence-to-sequence",
    "forecasting",
    "other",
]
Precision = Literal["fp32", "fp16", "int8"]
Provider = Literal["cpu", "cuda"]


class Batching(ContractObject):
    """Limits of batches; the server's operator may set lower ones.

    `max_tokens` limits the entries of a batch along its first padded axis with lengths, including
    padding. None: no limit.
    """

    max_rows: Annotated[Positive, Field(le=1_000_000)] = 32
    max_tokens: Annotated[Positive, Field(le=2**31 - 1)] | None = None
    max_queue_delay_s: Annotated[NotNegative, Field(le=86_400)] = 0.0


class Tolerance(ContractObject):
    """Two numbers agree if |actual - expected| <= absolute + relative * |expected|."""

    absolute: NotNegative
    relative: NotNegative


class Parity(ContractObject):
    """Differences of ONNX Runtime from `against`, measured when the bundle was made.

    `max_relative` is the largest |actual - expected| / |expected| where |expected| >= 0.001.
    `examples` describes the inputs that are not random. `sequences` counts the real inputs for
    which encoder and decoder graph decoded the same tokens as PyTorch, greedily.
    """

    max_absolute: NotNegative
    max_relative: NotNegative
    rows: Positive
    batch_sizes: list[Positive]
    examples: str
    sequences: Positive | None = None
    against: str = "PyTorch"


class Source(ContractObject):
    """Origin of an imported graph: the ONNX file, its changes, and what was proved of it.

    - `files`: the ONNX file and its external data, with their hashes.
    - `producer`: the program that wrote the file, with its version.
    - `opsets`: the version of each operator set, by domain.
    - `command`: the import's command line, without directories.
    - `changes`: the changes of the graph.
    - `checks`: what held for the example inputs.
    """

    files: Annotated[dict[str, Sha256], Field(min_length=1)]
    producer: str
    opsets: dict[str, Positive]
    command: str | None = None
    changes: list[str] = Field(default_factory=list)
    checks: list[str] = Field(default_factory=list)


class SplitChecksums(ContractObject):
    """SHA-256 of the source of each set of rows; shares of one file or data set are equal."""

    train: str
    validation: str
    test: str


class Provenance(ContractObject):
    """Origin of the weights: recipe, data and metrics of their training.

    - `data_checksum`: over the sources of all rows.
    - `split_checksums`: None in bundles of earlier versions.
    - `row_settings`: settings that decided which rows were read, such as the column of the tags.
    """

    recipe: str
    data: str
    data_checksum: str
    split_checksums: SplitChecksums | None = None
    row_settings: dict[str, str | int | bool] = Field(default_factory=dict)
    seed: int
    metrics: dict[str, float] = Field(default_factory=dict)


class Preprocessing(ContractObject):
    """Conversion of an encoded picture into a row of `input`: uint8, (height, width, channels).

    `stretch` resizes to (height, width) and ignores the aspect ratio. `short-side` resizes the
    short side to `short_side`, keeps the aspect ratio and takes the centre crop. `output` is the
    tensor of class probabilities.
    """

    input: str
    height: Positive
    width: Positive
    channels: Literal[1, 3]
    resize: Literal["stretch", "short-side"]
    short_side: Positive | None = None
    output: str

    @model_validator(mode="after")
    def _check_short_side(self) -> Self:
        if self.resize == "stretch" and self.short_side is not None:
            raise ValueError(f"short_side: expected none with stretch, got {self.short_side}")
        if self.resize == "short-side":
            least = max(self.height, self.width)
            if self.short_side is None or self.short_side < least:
                raise ValueError(f"short_side: expected at least {least}, got {self.short_side}")
        return self


class Quantisation(ContractObject):
    """Accuracy of the FP32 graph (`before`) and of the INT8 graph (`after`), measured on a CPU.

    Accuracy counts a row's class, or each of its tags, on `test_rows` rows of `test`. The method
    `static` takes ranges from `calibration_rows` rows of `calibration`; `dynamic` computes them in
    each run.
    """

    method: Literal["static", "dynamic"] = "static"
    before: NotNegative
    after: NotNegative
    calibration: str | None = None
    calibration_rows: Positive | None = None
    test: str
    test_rows: Positive

    @model_validator(mode="after")
    def _check_calibration(self) -> Self:
        given = [each for each in (self.calibration, self.calibration_rows) if each is not None]
        if len(given) != (2 if self.method == "static" else 0):
            expected = "calibration and its rows" if self.method == "static" else "no calibration"
            raise ValueError(f"expected {expected} with {self.method}, got {given or None}")
        return self


class Contract(ContractObject):
    """Contract of a bundle: all facts that a server needs besides the graph.

    - `files`: every file except `model.json`, with its hash; the writer fills it in.
    - `batch_axis`: the `dim_param` along which requests are batched; None: each runs alone.
    - `padded_axes`: by `dim_param`, the axes along which rows differ in length (see `sequences`).
    - `value_ranges`: the allowed values of integer inputs.
    - `labels`, `vocabularies`: by output or input, a file with a text for each index, one a line.
    - `preprocessing`, `tokenisation`: the conversion of a picture or a text; None: tensors only.
    - `decoding`: the connection of `encoder.onnx` and `decoder.onnx`, whose input names are then
      shared; None: the one graph `model.onnx`.
    - `series`: the columns that `forecasting` reads.
    - `providers`: the execution providers that may run a graph of this `precision`.
    - `sharing`: counts of the trained network's weights.
    - `source`: the ONNX file that was imported; None: the graph was exported.
    """

    format: Literal[1] = FORMAT
    task: Task
    architecture: str
    files: dict[FileName, Sha256] = Field(default_factory=dict)
    batch_axis: str | None = "batch"
    padded_axes: dict[str, PaddedAxis] = Field(default_factory=dict)
    value_ranges: dict[str, ValueRange] = Field(default_factory=dict)
    labels: dict[str, FileName] = Field(default_factory=dict)
    vocabularies: dict[str, FileName] = Field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    tokenisation: Tokenisation | None = None
    decoding: Decoding | None = None
    series: Series | None = None
    batching: Batching = Batching()
    precision: Precision = "fp32"
    providers: list[Provider] = Field(default=["cpu", "cuda"], min_length=1)
    tolerance: Tolerance
    parity: Parity | None = None
    quantisation: Quantisation | None = None
    sharing: Sharing | None = None
    training: Provenance | None = None
    source: Source | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        for name, following in pairwise(sorted(self.files, key=str.lower)):
            if name.lower() == following.lower():
                raise ValueError(
                    f"files: expected names that differ by more than case, "
                    f"got {name!r} and {following!r}"
                )
        return self

    @model_validator(mode="after")
    def _check_sequences(self) -> Self:
        check_axes(self.padded_axes, self.value_ranges, self.batch_axis)
        check_tokenisation(self.task, self.tokenisation, self.vocabularies)
        if (self.task == "sequence-to-sequence") != (self.decoding is not None):
            raise ValueError(f"decoding: expected with sequence-to-sequence alone, got {self.task}")
        if self.decoding is not None:
            if masks := [axis.mask for axis in self.padded_axes.values() if axis.mask is not None]:
                raise ValueError(
                    f"padded_axes: expected lengths for two graphs, got {masks} as mask"
                )
            check_decoding(self.decoding, self.value_ranges, self.vocabularies)
        check_series(self.task, self.series)
        return self

    def of_graph(self, inputs: AbstractSet[str]) -> Self:
        """The contract of the encoder or decoder alone, given its input names; tensors only."""
        axes = {
            name: axis.model_copy(
                update={
                    "padding": {key: axis.padding[key] for key in axis.padding if key in inputs},
                    "lengths": axis.lengths if axis.lengths in inputs else None,
                }
            )
            for name, axis in self.padded_axes.items()
            if inputs & axis.padding.keys()
        }
        return self.model_copy(
            update={
                "task": "other",
                "decoding": None,
                "tokenisation": None,
                "padded_axes": axes,
                "value_ranges": {k: v for k, v in self.value_ranges.items() if k in inputs},
                "vocabularies": {k: v for k, v in self.vocabularies.items() if k in inputs},
            }
        )


def parse(text: bytes, file: str = FILE_NAME) -> Contract:
    """Parse the bytes of `model.json`; BrokenBundle with a line for each problem."""
    try:
        contract = Contract.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise validation.contract_error(error, file) from error
    validation.check_keys(text, file)
    return contract
