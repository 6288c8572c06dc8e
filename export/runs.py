"""A run directory of `training/`, published: what `weir export RUN` does."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bundle.contract import Precision, Preprocessing, Provenance
from export.images import INPUT, LOGITS, PROBABILITIES, ImageNetwork, ImageOutputs
from export.int8 import CALIBRATION_ROWS, DEFAULT_MAX_DROP, Fitting
from export.publishing import Published, publish
from export.spec import ExportSpec
from training.errors import TrainingError
from training.run import ImageRecord, RunRecord, load_data, load_model, read_record

_EXAMPLE_ROWS = 64
_CALIBRATION_SEED = 0


@dataclass(frozen=True, slots=True)
class Examples:
    """Pictures (n, H, W, C) to compare network and graph on, and what they are."""

    images: Tensor
    description: str


def publish_run(
    run: Path,
    *,
    to: Path,
    name: str | None = None,
    version: int | None = None,
    precision: Precision = "fp32",
    max_accuracy_drop: float = DEFAULT_MAX_DROP,
) -> Published:
    """Publish a trained network, named after its architecture by default.

    Args:
        run: the run directory.
        to: the model repository.
        name: of the model.
        version: the next free one by default.
        precision: `int8` needs the run's data.
        max_accuracy_drop: points that INT8 may cost.

    Raises:
        TrainingError: the run cannot be read, or data that is needed.
        ExportError: see `publish`.
        BundleError: see `publish`.
    """
    record = read_record(run)
    network = ImageNetwork(load_model(run), record.image.mean, record.image.std)
    examples = _examples(record)
    return publish(
        network,
        {INPUT: examples.images},
        _spec(record, examples.description),
        to=to,
        name=name or record.architecture,
        version=version,
        precision=_fitting(record, max_accuracy_drop) if precision == "int8" else precision,
    )


def _fitting(record: RunRecord, max_drop: float) -> Fitting:
    """Training pictures to quantise by, drawn from a fixed seed, and the whole test set."""
    name = Path(record.data.name).name
    train, test = load_data(record, "train"), load_data(record, "test")
    order = np.random.default_rng(_CALIBRATION_SEED).permutation(len(train.images))
    rows = np.sort(order[:CALIBRATION_ROWS])
    return Fitting(
        calibration={INPUT: train.images[rows]},
        calibration_from=f"training pictures of {name}, seed {_CALIBRATION_SEED}",
        test={INPUT: test.images},
        test_from=f"test pictures of {name}",
        answers=test.labels,
        output=LOGITS,
        max_drop=max_drop,
    )


def _examples(record: RunRecord) -> Examples:
    """Test pictures of the run's own data set, or random ones where it cannot be had."""
    name = Path(record.data.name).name
    try:
        images = load_data(record, "test").images
    except TrainingError as error:
        reason = str(error).splitlines()[0]
        return Examples(_random_images(record), f"random, without the data set: {reason}")
    # Spread over the set: some are sorted by class.
    rows = np.linspace(0, len(images) - 1, min(_EXAMPLE_ROWS, len(images)), dtype=np.int64)
    return Examples(torch.from_numpy(images[rows]), f"test pictures of {name}")


def _random_images(record: RunRecord) -> Tensor:
    image = record.image
    shape = (_EXAMPLE_ROWS, image.height, image.width, image.channels)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _spec(record: RunRecord, examples: str) -> ExportSpec:
    return ExportSpec(
        task=record.task,
        architecture=record.architecture,
        outputs=ImageOutputs._fields,
        labels=dict.fromkeys(ImageOutputs._fields, record.classes),
        preprocessing=_preprocessing(record.image),
        examples=examples,
        training=_provenance(record),
        commit=record.commit,
    )


def _preprocessing(image: ImageRecord) -> Preprocessing:
    """The way training's evaluation pictures were made of encoded ones."""
    return Preprocessing(
        input=INPUT,
        height=image.height,
        width=image.width,
        channels=1 if image.channels == 1 else 3,
        resize=image.resize,
        short_side=image.short_side,
        output=PROBABILITIES,
    )


def _provenance(record: RunRecord) -> Provenance:
    metrics = {"seconds": record.seconds, "epochs": float(len(record.epochs))}
    for epoch in record.epochs:
        if epoch.epoch == record.best_epoch:
            metrics["validation_accuracy"] = epoch.validation_accuracy
    if record.test_accuracy is not None:
        metrics["test_accuracy"] = record.test_accuracy
    return Provenance(
        recipe=record.recipe.name,
        # The name only: where a folder lay on this machine concerns nobody else.
        data=Path(record.data.name).name,
        data_checksum=record.data.checksum,
        seed=record.seed,
        metrics=metrics,
    )
