"""A run directory: what training leaves behind, and the one way to read it.

    weights.safetensors     the weights of the best validation epoch
    run.json                `RunRecord`
    vocabulary.*.txt        of what reads words, `weir.training.data.vocabulary`
    learning_curve.png, confusion_matrix.png, forecast.png, …

Nothing in it is pickled, so a run from elsewhere can be read without running its code.
"""

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from weir.training.errors import DataError, RunError
from weir.training.files import apart, write_whole
from weir.training.recipe import explain
from weir.training.recipes import KINDS, AnyRecipe

WEIGHTS = "weights.safetensors"
RECORD = "run.json"


class Record(BaseModel):
    """A part of `run.json`; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class DataRecord(Record):
    """Which data were used, and the proof."""

    name: str = Field(description="a data set's name, or the absolute path of a folder or file")
    checksum: str = Field(description="SHA-256 over the source files")
    train_rows: int
    validation_rows: int
    test_rows: int


class ImageRecord(Record):
    """What the network takes: normalised = (uint8 / 255 - mean) / std, a mean and std a channel."""

    height: int
    width: int
    channels: int
    mean: list[float]
    std: list[float]
    resize: Literal["stretch", "short-side"] = Field(
        default="stretch",
        description="how a picture of any size is brought to this one; short-side: in proportion, bilinear, then the middle",
    )
    short_side: int | None = Field(default=None, description="its length, with short-side")


class SequenceRecord(Record):
    """What the network takes: tokens of vocabularies, or frames of bytes, normalised in the network itself."""

    words: int | None = Field(default=None, description="in the vocabulary; none: frames")
    characters: int | None = Field(default=None, description="likewise; none: spelling is not read")
    features: int | None = Field(default=None, description="bytes of a frame; none: tokens")
    mean: float = Field(default=0.0, description="of the training frames, as a share of 255")
    std: float = Field(default=1.0, description="likewise")


class SeriesRecord(Record):
    """What the network takes: values as they were measured, scaled in the network itself."""

    columns: list[str] = Field(description="the one that is forecast first")
    mean: list[float] = Field(description="of each column's training part")
    std: list[float] = Field(description="likewise")


class PairRecord(Record):
    """What the network takes and gives: tokens of two vocabularies."""

    source_words: int
    target_words: int


class EpochRecord(Record):
    """One pass over the training rows, as distorted, and what validation said after it.

    Accuracies are none where targets are numbers.
    """

    epoch: int = Field(description="from 1")
    learning_rate: float = Field(description="at the epoch's last step")
    loss: float
    accuracy: float | None
    validation_loss: float
    validation_accuracy: float | None
    seconds: float


class RunRecord(Record):
    """All there is to know about a run.

    `test_accuracy` is none until the one test is done, and where targets are numbers.
    """

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
    best_epoch: int = Field(description="whose weights were kept")
    test_accuracy: float | None
    test_metrics: dict[str, float] = Field(default={}, description="what else was measured")
    test_notes: dict[str, str] = Field(
        default={}, description="by which settings, where a field signs them: of BLEU, sacrebleu's"
    )
    seconds: float


_Part = TypeVar("_Part", bound=BaseModel)
_LEARNT_FROM: dict[type[BaseModel], str] = {
    **{kind: name for name, kind in KINDS.items()},
    ImageRecord: "pictures",
    SequenceRecord: "sequences",
    PairRecord: "pairs",
    SeriesRecord: "series",
}


def read_record(run: Path) -> RunRecord:
    """Read a run's record.

    Raises:
        RunError: no such run, or its record is broken.
    """
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
    """A run's recipe, or what its network takes, of the kind that is asked for.

    Raises:
        RunError: the run is of another kind.
    """
    for part in (record.recipe, record.image, record.sequence, record.pairs, record.series):
        if isinstance(part, kind):
            return part
    raise RunError(
        f"{record.recipe.name}: expected a run on {_LEARNT_FROM[kind]}, got {record.task}"
    )


def write_record(run: Path, record: RunRecord) -> None:
    """Write a run's record, whole or not at all."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_whole(run / RECORD, text.encode())


def save_weights(run: Path, weights: dict[str, Tensor]) -> None:
    """Write a run's weights, whole or not at all."""
    write_whole(run / WEIGHTS, save(apart(weights)))


def load_weights(run: Path, network: nn.Module) -> nn.Module:
    """The run's weights, put into a network of its architecture; in eval mode.

    Raises:
        RunError: weights that are not the network's.
    """
    path = run / WEIGHTS
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"{path}: not the weights of {type(network).__name__}: {error}") from error
    return network.eval()


def require_same_data(record: RunRecord, checksum: str) -> None:
    """Refuse data that are no longer those a run was trained on.

    Raises:
        DataError: names both checksums.
    """
    if checksum != record.data.checksum:
        raise DataError(
            f"{record.data.name}: SHA-256 was {record.data.checksum} when the run was trained, is {checksum}"
        )
