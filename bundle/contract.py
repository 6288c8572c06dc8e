"""`model.json`: what a bundle must say that its graph cannot.

Names, types and shapes of tensors are read off the ONNX graph and are not repeated here.
Reading is strict: unknown keys, unknown formats and values of the wrong type are refused.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from weir.bundle import validation
from weir.bundle.decoding import Decoding, check_decoding
from weir.bundle.field_types import ContractObject, FileName, NotNegative, Positive, Sha256
from weir.bundle.sequences import (
    PaddedAxis,
    Tokenisation,
    ValueRange,
    check_axes,
    check_tokenisation,
)

Column = Annotated[str, Field(min_length=1)]


class Series(ContractObject):
    """Of which columns so many moments make one row, and how many are forecast."""

    input: str = "history"
    output: str = "forecast"
    target: Column
    exogenous: list[Column] = Field(default_factory=list)
    lags: Positive
    horizon: Positive

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        columns = [self.target, *self.exogenous]
        if len(set(columns)) < len(columns):
            raise ValueError(f"expected columns of different names, got {columns}")
        return self

    def check_shapes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise ValueError unless tensors of these shapes, batch first, hold its input and its output."""
        columns = 1 + len(self.exogenous)
        for name, wanted in ((self.input, (self.lags, columns)), (self.output, (self.horizon,))):
            found = tuple(shapes[name][1:]) if name in shapes else None
            if found != wanted:
                raise ValueError(f"series: {name}: expected rows of shape {wanted}, got {found}")


def check_series(task: str, series: Series | None) -> None:
    """Raise ValueError unless forecasting, and nothing else, comes with a series."""
    if (task == "forecasting") != (series is not None):
        expected = "a series with" if series is None else "none without"
        raise ValueError(f"series: expected {expected} the task forecasting, got {task}")


class Sharing(ContractObject):
    """Counts of the network as it was trained, for one row.

    `connections` are uses of a weight, or a bias, for one output unit. An exported graph may have others: it holds
    batch norms folded into convolutions, and partial connections filled up with zeros.
    """

    parameters: Positive
    connections: Positive


FILE_NAME = "model.json"
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
    """How requests may be put together; the server's operator may choose less.

    `max_tokens` is the most entries that a batch may have along its first padded axis with lengths,
    with what fills its rows up; None: as many as its rows have.
    """

    max_rows: Annotated[Positive, Field(le=1_000_000)] = 32
    max_tokens: Annotated[Positive, Field(le=2**31 - 1)] | None = None
    max_queue_delay_s: Annotated[NotNegative, Field(le=86_400)] = 0.0


class Tolerance(ContractObject):
    """Two numbers agree when |actual - expected| <= absolute + relative * |expected|."""

    absolute: NotNegative
    relative: NotNegative


class Parity(ContractObject):
    """How far ONNX Runtime was from PyTorch when the bundle was made.

    `max_relative` is the largest |actual - expected| / |expected| where |expected| >= 0.001: nearer
    to zero it says nothing. `examples` says what the inputs were besides random ones. `sequences` is
    the number of real inputs for which PyTorch and a pair of graphs gave the same tokens, greedily.
    """

    max_absolute: NotNegative
    max_relative: NotNegative
    rows: Positive
    batch_sizes: list[Positive]
    examples: str
    sequences: Positive | None = None


class Provenance(ContractObject):
    """The training the weights come from."""

    recipe: str
    data: str
    data_checksum: str
    seed: int
    metrics: dict[str, float] = Field(default_factory=dict)


class Preprocessing(ContractObject):
    """How an encoded picture becomes one row of `input`: uint8, (height, width, channels).

    `stretch` resizes to (height, width) whatever the picture's proportions. `short-side` resizes
    the short side to `short_side`, the long one in proportion, and cuts the middle out. `output`
    holds the classes' probabilities, one row a picture.
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
    """What INT8 cost: shares of the answers that are right, by ONNX Runtime on a CPU.

    An answer is a row's class, or each of its tags. `before` is the FP32 graph's, `after` that of
    the graph in the bundle, on `test_rows` rows of `test`. Of the two methods, `static` set the
    ranges by `calibration_rows` rows of `calibration`; `dynamic` sets them anew in each run.
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
    """Everything a server must know about a bundle besides its graph.

    `files` holds every file but `model.json`; the writer fills it in. `batch_axis` is the
    `dim_param` along which requests are put together, None for a model that takes one request
    at a time. `padded_axes` are those along which rows differ in length, by `dim_param`, and
    `value_ranges` what an input of integers may hold (see `sequences`). `labels` maps an output,
    and `vocabularies` an input, to the file with a text for each index, one a line from 0.
    `preprocessing` says how the server makes a tensor of a picture, `tokenisation` of a text, None
    where it cannot. `decoding` says how `encoder.onnx` and `decoder.onnx` work together; None for the
    one graph `model.onnx`. Of a pair, names of inputs mean those of both. `series` says which columns
    `forecasting` reads. `providers` are those that may run a graph of this `precision`.
    `sharing` counts the weights of the network that the graph was made of.
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
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        names = sorted(self.files, key=str.lower)
        for name, following in pairwise(names):
            if name.lower() == following.lower():
                raise ValueError(
                    f"files: expected names that differ by more than case, got {name!r} and {following!r}"
                )
        return self

    @model_validator(mode="after")
    def _check_sequences(self) -> Self:
        check_axes(self.padded_axes, self.value_ranges, self.batch_axis)
        check_tokenisation(self.tokenisation, self.vocabularies)
        if (self.task == "sequence-to-sequence") != (self.decoding is not None):
            raise ValueError(f"decoding: expected with sequence-to-sequence alone, got {self.task}")
        if self.decoding is not None:
            check_decoding(self.decoding, self.value_ranges, self.vocabularies)
        check_series(self.task, self.series)
        return self

    def of_graph(self, inputs: AbstractSet[str]) -> Self:
        """What holds for one graph of a pair by itself, given the names of its inputs: tensors only."""
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
    """Read a contract from the bytes of `model.json`.

    Raises:
        BrokenBundle: with one line a problem, each naming file, key, what was expected and came.
    """
    try:
        contract = Contract.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise validation.contract_error(error, file) from error
    validation.check_keys(text, file)
    return contract
