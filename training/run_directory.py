"""The run directory: what training leaves behind, and how it is read and written.

    weights.safetensors     the weights of the best validation epoch
    run.json                `RunRecord`
    vocabulary.*.txt        of networks that read words, see `weir.training.data.vocabulary`
    learning_curve.png, confusion_matrix.png, forecast.png, …
    events.out.tfevents.*   with --log tensorboard, see `weir.training.event_file`

Nothing in it is pickled: reading a foreign run executes none of its code. Each file is replaced as
a whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from weir.training.errors import DataError, RunError
from weir.training.recipe import explain
from weir.training.recipes import KINDS, AnyRecipe

WEIGHTS = "weights.safetensors"
RECORD = "run.json"


class Record(BaseModel):
    """Base of the parts of `run.json`; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class SplitRecord(Record):
    """SHA-256 of the source of each set of rows; shares of one file or data set are equal."""

    train: str
    validation: str
    test: str


class DataRecord(Record):
    """The data set of a run, and its checksums."""

    name: str = Field(description="a data set's name, or the absolute path of a folder or file")
    checksum: str = Field(description="SHA-256 over the source files")
    split_checksums: SplitRecord | None = Field(
        default=None, description="none in runs of earlier versions"
    )
    train_rows: int
    validation_rows: int
    test_rows: int


class ImageRecord(Record):
    """The input of an image network: normalised = (uint8 / 255 - mean) / std, by channel."""

    height: int
    width: int
    channels: int
    mean: list[float]
    std: list[float]
    resize: Literal["stretch", "short-side"] = Field(
        default="stretch",
        description="how images of any size are resized, bilinear; short-side: in proportion, "
        "then the centre is cropped",
    )
    short_side: int | None = Field(default=None, description="in pixels, with short-side")
    skipped_files: int = Field(default=0, description="files of the data that were left out")
    skipped: list[str] = Field(
        default=[], description="the first thousand of them, each with the reason"
    )


class SequenceRecord(Record):
    """The input of a sequence network: tokens, or frames of bytes that it normalises itself."""

    words: int | None = Field(default=None, description="vocabulary size; none: frames")
    characters: int | None = Field(
        default=None, description="size of the character vocabulary; none: characters are not read"
    )
    features: int | None = Field(default=None, description="bytes of a frame; none: tokens")
    mean: float = Field(default=0.0, description="of the training frames, divided by 255")
    std: float = Field(default=1.0, description="of the training frames, divided by 255")


class IntervalRecord(Record):
    """The prediction interval of a forecast; see `weir.training.forecasting.intervals`."""

    level: float = Field(description="share of the measured values that it is to hold")
    lower: list[float] = Field(description="by step ahead; added to the forecast")
    upper: list[float] = Field(description="likewise")
    is_relative: bool = Field(description="whether the numbers are parts of the forecast")


class SeriesRecord(Record):
    """The input of a forecasting network: raw values, which it scales itself."""

    columns: list[str] = Field(description="the forecast column is the first")
    mean: list[float] = Field(description="of each column's training part")
    std: list[float] = Field(description="of each column's training part")
    lags: int | None = Field(default=None, description="time steps of a row; none: the recipe's")
    season: int | None = Field(
        default=None,
        description="steps after which the series repeats; 0: never; none: not looked for",
    )
    is_logarithm: bool = Field(
        default=False, description="whether the network computes with logarithms of the values"
    )
    is_centred: bool = Field(
        default=False, description="whether its nonlinear part reads no level, but differences"
    )
    trained_share: float = Field(
        default=1.0,
        description="the weights' place between the first linear forecast (0) and training's (1)",
    )
    interval: IntervalRecord | None = Field(
        default=None, description="none: too few validation rows to measure one"
    )


class PairRecord(Record):
    """The vocabulary sizes of a sequence-to-sequence network."""

    source_words: int
    target_words: int


class EpochRecord(Record):
    """One epoch: training scores on augmented rows, and the validation scores after it.

    Accuracies are None if targets are numbers.
    """

    epoch: int = Field(description="from 1")
    learning_rate: float = Field(description="at the epoch's last step")
    loss: float
    accuracy: float | None
    validation_loss: float
    validation_accuracy: float | None
    validation_macro_f1: float | None = Field(
        default=None, description="if it chooses the best epoch, as it does with class weights"
    )
    seconds: float


class RunRecord(Record):
    """The content of `run.json`; `test_accuracy` is None before the test and for numbers."""

    format: Literal[1] = 1
    recipe: AnyRecipe
    architecture: str
    task: Literal[
        "image-classification",
        "sequence-classification",
        "tagging",
        "sequence-to-sequence",
        "forecasting",
    ]
    data: DataRecord
    seed: int
    classes: list[str]
    image: ImageRecord | None = None
    sequence: SequenceRecord | None = None
    series: SeriesRecord | None = None
    pairs: PairRecord | None = None
    versions: dict[str, str]
    commit: str | None
    device: str
    epochs: list[EpochRecord]
    best_epoch: int = Field(description="the epoch of the kept weights")
    keeps_last: bool = Field(
        default=False,
        description="the last epoch was kept, by the recipe or for want of validation rows",
    )
    test_accuracy: float | None
    test_metrics: dict[str, float] = Field(default={}, description="further measures by name")
    test_notes: dict[str, str] = Field(
        default={}, description="how they were measured, such as sacrebleu's signature"
    )
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The network's scores on the test set.

    accuracy: None if targets are numbers.
    confusions: counts (classes, classes) by true class and answer; None if targets are no classes.
    metrics: further measures, by the field's names.
    notes: see `RunRecord.test_notes`.
    """

    accuracy: float | None
    confusions: NDArray[np.int64] | None
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


InputRecord: TypeAlias = ImageRecord | SequenceRecord | SeriesRecord | PairRecord
INPUT_FIELDS: dict[type[InputRecord], str] = {
    ImageRecord: "image",
    SequenceRecord: "sequence",
    PairRecord: "pairs",
    SeriesRecord: "series",
}
"""The field of `RunRecord` that holds the record of each kind of input, in the order of `KINDS`."""

_Part = TypeVar("_Part", bound=BaseModel)
_KIND_NAMES: dict[type[BaseModel], str] = {
    **{kind: name for name, kind in KINDS.items()},
    **dict(zip(INPUT_FIELDS, KINDS, strict=True)),
}


def read_record(run: Path) -> RunRecord:
    """Read a run's record; `RunError` if it is missing or broken."""
    path = run / RECORD
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{run}: no finished run here, {RECORD} is missing") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise RunError(f"{path}: {explain(error)}") from error


def part_of(record: RunRecord, kind: type[_Part]) -> _Part:
    """Return the run's recipe or input record if it has this class; `RunError` if it has not."""
    for part in (record.recipe, record.image, record.sequence, record.pairs, record.series):
        if isinstance(part, kind):
            return part
    raise RunError(
        f"{record.recipe.name}: expected a run on {_KIND_NAMES[kind]}, got {record.task}"
    )


def write_record(run: Path, record: RunRecord) -> None:
    """Write a run's record."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_atomically(run / RECORD, text.encode())


def save_weights(run: Path, weights: dict[str, Tensor]) -> None:
    """Write a run's weights."""
    write_atomically(run / WEIGHTS, save(unshare(weights)))


def load_weights(run: Path, network: nn.Module) -> nn.Module:
    """Load the run's weights into a network, in eval mode; `RunError` if they do not fit it."""
    path = run / WEIGHTS
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"{path}: not the weights of {type(network).__name__}: {error}") from error
    return network.eval()


def require_same_data(record: RunRecord, checksum: str) -> None:
    """Refuse data that changed since the run was trained."""
    if checksum != record.data.checksum:
        raise DataError(
            f"{record.data.name}: SHA-256 was {record.data.checksum} when the run was trained, "
            f"is {checksum}"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file and rename it: readers see the old file or the new one."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def unshare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor its own memory, as safetensors requires; tied weights share theirs."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return {name: tensor.contiguous() for name, tensor in separate.items()}
