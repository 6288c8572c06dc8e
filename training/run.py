"""A run directory: what training leaves behind, and the one way to read it.

    weights.safetensors     the weights of the best validation epoch
    run.json                `RunRecord`
    learning_curve.png, confusion_matrix.png

Nothing in it is pickled, so a run from elsewhere can be read without running its code.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from training.data import ImageData, Split, load
from training.errors import DataError, RunError
from training.files import write_whole
from training.models import build
from training.recipes import Recipe, explain

WEIGHTS = "weights.safetensors"
RECORD = "run.json"


class Record(BaseModel):
    """A part of `run.json`; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class DataRecord(Record):
    """Which pictures were used, and the proof."""

    name: str = Field(description="a data set's name, or the absolute path of a folder")
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


class EpochRecord(Record):
    """One pass over the training pictures, as distorted, and what validation said after it."""

    epoch: int = Field(description="from 1")
    learning_rate: float = Field(description="at the epoch's last step")
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


class RunRecord(Record):
    """All there is to know about a run; `test_accuracy` is none until the one test is done."""

    format: Literal[1] = 1
    recipe: Recipe
    architecture: str
    task: Literal["image-classification"] = "image-classification"
    data: DataRecord
    seed: int
    classes: list[str]
    image: ImageRecord
    versions: dict[str, str]
    commit: str | None
    device: str
    epochs: list[EpochRecord]
    best_epoch: int = Field(description="whose weights were kept")
    test_accuracy: float | None
    seconds: float


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


def write_record(run: Path, record: RunRecord) -> None:
    """Write a run's record, whole or not at all."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_whole(run / RECORD, text.encode())


def save_weights(run: Path, weights: dict[str, Tensor]) -> None:
    """Write a run's weights, whole or not at all."""
    write_whole(run / WEIGHTS, save({name: each.contiguous() for name, each in weights.items()}))


def load_model(run: Path) -> nn.Module:
    """The run's network, in eval mode, with its weights, on the CPU.

    It takes normalised float32 pictures (B, C, H, W) and returns logits (B, classes).

    Raises:
        RunError: no such run, or weights that are not the architecture's.
    """
    record = read_record(run)
    image = record.image
    network = build(
        record.architecture,
        classes=len(record.classes),
        height=image.height,
        width=image.width,
        channels=image.channels,
    )
    path = run / WEIGHTS
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"{path}: not the weights of {record.architecture}: {error}") from error
    return network.eval()


def load_data(record: RunRecord, split: Split) -> ImageData:
    """The pictures a run was trained or tested on, in the form its network takes.

    Raises:
        DataError: they are not here, or no longer the same.
    """
    image = record.image
    data = load(
        record.data.name,
        split=split,
        height=image.height,
        width=image.width,
        channels=image.channels,
        short_side=image.short_side,
    )
    if data.checksum != record.data.checksum:
        raise DataError(
            f"{record.data.name}: SHA-256 was {record.data.checksum} when the run was trained, is {data.checksum}"
        )
    return data
