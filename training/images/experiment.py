"""The image-classification experiment: data, normalisation, network and evaluation."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from weir.training.class_scores import Numbers, macro_f1, most_frequent_class
from weir.training.data import ImageData, Split, load
from weir.training.data.hub import has_validation, load_hub_pictures
from weir.training.data.image_folder import require_few_skipped
from weir.training.data.images import divide
from weir.training.equal_rows import describe_equal_rows
from weir.training.images.batches import (
    Normaliser,
    in_order,
    make_task,
    measure_normaliser,
    to_device,
)
from weir.training.images.recipes import ImageRecipe, ImageSize
from weir.training.loop import Batch, Task
from weir.training.models import build
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.run_directory import (
    Evaluation,
    ImageRecord,
    RunRecord,
    SplitRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
)

MOST_LISTED = 1000
"""Skipped files that the record names."""


@dataclass(frozen=True, slots=True)
class ImageExperiment:
    """A recipe with its images in memory; see `weir.training.train.Experiment`.

    notes: on the test set.
    """

    recipe: ImageRecipe
    train: ImageData
    validation: ImageData
    held_out: ImageData
    normaliser: Normaliser
    notes: dict[str, str]

    @property
    def checksum(self) -> str:
        """SHA-256 over the source files."""
        return self.train.checksum

    @property
    def split_checksums(self) -> SplitRecord:
        """Of the pictures of each set; those of a folder are validated on training pictures."""
        return SplitRecord(
            train=self.train.source_checksum,
            validation=self.validation.source_checksum,
            test=self.held_out.source_checksum,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.train.classes

    @property
    def record(self) -> ImageRecord:
        """The network's input."""
        image = self.recipe.image
        sets = (self.train, self.validation, self.held_out)
        # Validation pictures that are held out of the training ones have the same list.
        skipped = list(dict.fromkeys(each for data in sets for each in data.skipped))
        return ImageRecord(
            **image.model_dump(),
            mean=list(self.normaliser.mean),
            std=list(self.normaliser.std),
            resize="stretch" if image.short_side is None else "short-side",
            skipped_files=len(skipped),
            skipped=[str(each) for each in skipped[:MOST_LISTED]],
        )

    def build(self) -> nn.Module:
        """Build the network."""
        recipe = self.recipe
        network = build(
            recipe.architecture,
            classes=len(self.classes),
            auxiliary=recipe.auxiliary_weight > 0.0,
            **recipe.image.model_dump(exclude={"short_side"}),
        )
        if recipe.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def make_task(self, device: torch.device, *, mixed: bool) -> Task:
        """Return the batches, on the device, and the loss."""
        train, validation = to_device(self.train, device), to_device(self.validation, device)
        return make_task(
            train, validation, self.normaliser, self.recipe, len(self.classes), mixed=mixed
        )

    def write_files(self, out: Path) -> None:
        """Write nothing: weights and record suffice."""

    def test(self, network: nn.Module, device: torch.device, out: Path) -> Evaluation:  # noqa: ARG002
        """Count the answers to the test images, and score the most frequent class beside them."""
        batches = in_order(to_device(self.held_out, device), self.normaliser)
        predicted, labels = _predict(network, batches), self.held_out.labels
        confusions = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(confusions, (labels, predicted), 1)
        evaluation = Evaluation(
            accuracy=float((predicted == labels).mean()),
            confusions=confusions,
            metrics={"macro_f1": macro_f1(predicted, labels)},
            notes=self.notes,
        )
        baseline = most_frequent_class(self.train.labels, labels, self.classes)
        return baseline.beside(evaluation)


def prepare(recipe: ImageRecipe) -> ImageExperiment:
    """Load both splits, and split the validation rows off the training split.

    Equal images are all for training or all for validation.
    """
    size = recipe.image.model_dump()
    given, held_out = (load(recipe.data, split, **size) for split in ("train", "test"))
    skipped = (*given.skipped, *held_out.skipped)
    require_few_skipped(recipe.data, skipped, len(given) + len(held_out))
    if has_validation(recipe.data):
        kept, validation = given, load_hub_pictures(recipe.data, "dev", **size)
        require_few_skipped(recipe.data, validation.skipped, len(validation))
    else:
        seed = derive_seed(recipe.seed, Purpose.DIVISION)
        division = divide(given.labels, recipe.validation_share, seed, given.contents())
        kept, validation = given.take(division.kept), given.take(division.held_out)
    return ImageExperiment(
        recipe=recipe,
        train=kept,
        validation=validation,
        held_out=held_out,
        normaliser=measure_normaliser(kept.images, recipe),
        notes=describe_equal_rows(kept.contents(), validation.contents(), held_out.contents()),
    )


@torch.inference_mode()
def _predict(network: nn.Module, batches: Iterable[Batch]) -> Numbers:
    """The class of the highest logit of each row, (rows,)."""
    network.eval()
    return np.concatenate([network(*batch.inputs).argmax(dim=1).cpu().numpy() for batch in batches])


def load_model(run: Path) -> nn.Module:
    """Load a finished run's network, in eval mode, on the CPU; errors as `load_weights`.

    It takes normalised float32 images (B, C, H, W) and returns logits (B, classes).
    """
    record = read_record(run)
    image = part_of(record, ImageRecord)
    size = image.model_dump(include={"height", "width", "channels"})
    return load_weights(run, build(record.architecture, classes=len(record.classes), **size))


def load_data(record: RunRecord, split: Split) -> ImageData:
    """Load the images of a run, as its network takes them; errors as `require_same_data`."""
    image = part_of(record, ImageRecord)
    size = image.model_dump(include=set(ImageSize.model_fields))
    data = load(record.data.name, split, **size)
    require_same_data(record, data.checksum)
    return data
