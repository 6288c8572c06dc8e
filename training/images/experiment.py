"""Image classification as a problem: both splits, their normalisation, and what is said of them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from weir.training.data import ImageData, Split, load
from weir.training.data.images import divide
from weir.training.experiment import Description, Tested
from weir.training.images.batches import (
    Normaliser,
    in_order,
    make_task,
    measure_normaliser,
    to_device,
)
from weir.training.images.evaluation import count_confusions
from weir.training.images.recipe import PictureRecipe
from weir.training.loop import Task
from weir.training.models import build
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.run_directory import (
    DataRecord,
    ImageRecord,
    RunRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
)


@dataclass(frozen=True, slots=True)
class PictureProblem:
    """The three sets of a run, and how their pictures are normalised; see `weir.training.experiment.Problem`."""

    recipe: PictureRecipe
    train: ImageData
    validation: ImageData
    held_out: ImageData
    normaliser: Normaliser

    @property
    def checksum(self) -> str:
        """SHA-256 over the source files."""
        return self.train.checksum

    def build(self) -> nn.Module:
        """A network with fresh weights."""
        recipe = self.recipe
        network = build(
            recipe.architecture,
            classes=len(self.train.classes),
            height=recipe.image.height,
            width=recipe.image.width,
            channels=recipe.image.channels,
            auxiliary=recipe.auxiliary_weight > 0.0,
        )
        if recipe.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def make_task(self, where: torch.device, *, mixed: bool) -> Task:
        """Both sets on the device, in batches."""
        train, validation = to_device(self.train, where), to_device(self.validation, where)
        return make_task(train, validation, self.normaliser, self.recipe, mixed=mixed)

    def describe(self) -> Description:
        """Which pictures, and how they are brought to the network."""
        image = self.recipe.image
        return Description(
            data=DataRecord(
                name=self.recipe.data,
                checksum=self.checksum,
                train_rows=len(self.train.labels),
                validation_rows=len(self.validation.labels),
                test_rows=len(self.held_out.labels),
            ),
            classes=self.train.classes,
            image=ImageRecord(
                **image.model_dump(),
                mean=list(self.normaliser.mean),
                std=list(self.normaliser.std),
                resize="stretch" if image.short_side is None else "short-side",
            ),
        )

    def leave(self, out: Path) -> None:
        """Nothing: weights and record are all it takes."""

    def test(self, network: nn.Module, where: torch.device, out: Path) -> Tested:  # noqa: ARG002
        """Count the answers to the test pictures."""
        batches = in_order(to_device(self.held_out, where), self.normaliser)
        confusions = count_confusions(network, batches, len(self.train.classes))
        return Tested(float(confusions.trace() / confusions.sum()), confusions)


def prepare(recipe: PictureRecipe) -> PictureProblem:
    """Load both splits, and take the validation rows from the training split.

    The test set is read here, unused, so that a broken file shows before the training and not after it.
    """
    size = recipe.image
    given, held_out = (
        load(
            recipe.data,
            split,
            height=size.height,
            width=size.width,
            channels=size.channels,
            short_side=size.short_side,
        )
        for split in ("train", "test")
    )
    division = divide(
        given.labels, recipe.validation_share, derive_seed(recipe.seed, Purpose.DIVISION)
    )
    kept = given.take(division.kept)
    return PictureProblem(
        recipe=recipe,
        train=kept,
        validation=given.take(division.held_out),
        held_out=held_out,
        normaliser=measure_normaliser(kept.images, recipe),
    )


def load_model(run: Path) -> nn.Module:
    """A finished run's network, in eval mode, with its weights, on the CPU.

    It takes normalised float32 pictures (B, C, H, W) and returns logits (B, classes).

    Raises:
        RunError: no such run, one of another kind, or weights that are not the architecture's.
    """
    record = read_record(run)
    image = part_of(record, ImageRecord)
    network = build(
        record.architecture,
        classes=len(record.classes),
        height=image.height,
        width=image.width,
        channels=image.channels,
    )
    return load_weights(run, network)


def load_data(record: RunRecord, split: Split) -> ImageData:
    """The pictures a run was trained or tested on, in the form its network takes.

    Raises:
        DataError: they are not here, or no longer the same.
        RunError: a run of another kind.
    """
    image = part_of(record, ImageRecord)
    data = load(
        record.data.name,
        split=split,
        height=image.height,
        width=image.width,
        channels=image.channels,
        short_side=image.short_side,
    )
    require_same_data(record, data.checksum)
    return data
