"""Batches of augmented, normalised images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from weir.training.data import ImageData
from weir.training.data.images import Images
from weir.training.images.augmentation import crop, cut_out, distort, mix, shift_colours
from weir.training.images.recipes import Augmentation, ImageRecipe
from weir.training.loop import Batch, Task
from weir.training.optimization import choose_loss, weigh_classes
from weir.training.reproducibility import Purpose, generator_for

EVALUATION_ROWS = 512


@dataclass(frozen=True, slots=True)
class Normaliser:
    """normalised = (uint8 / 255 - mean) / std, with a mean and a std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, scaled: Tensor) -> Tensor:
        """Normalise (B, C, H, W) of 0 to 1."""
        mean = torch.tensor(self.mean, device=scaled.device)[:, None, None]
        std = torch.tensor(self.std, device=scaled.device)[:, None, None]
        return (scaled - mean) / std


def measure_normaliser(images: Images, recipe: ImageRecipe) -> Normaliser:
    """Return the recipe's normalisation, or measure mean and std of (n, H, W, C) by channel."""
    channels = images.shape[3]
    if recipe.normalisation:
        fixed = recipe.normalisation
        return Normaliser((fixed.mean,) * channels, (fixed.std,) * channels)
    # Sums over the 256 values are exact and need no floating-point copy of the images.
    values = torch.arange(256, dtype=torch.float64) / 255.0
    means, stds = [], []
    for channel in range(channels):
        pixels = torch.from_numpy(images[..., channel].reshape(-1))
        shares = torch.bincount(pixels, minlength=256).double() / len(pixels)
        mean = float(values @ shares)
        means.append(mean)
        # Images of a single colour would divide by 0.
        stds.append(max(float(((values - mean) ** 2) @ shares) ** 0.5, 1.0 / 255.0))
    return Normaliser(tuple(means), tuple(stds))


@dataclass(frozen=True, slots=True)
class ImageRows:
    """One split on the device: uint8 (n, C, H, W) and labels (n,)."""

    images: Tensor
    labels: Tensor


def to_device(data: ImageData, device: torch.device) -> ImageRows:
    """Move a split to the device, channels first."""
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous()
    return ImageRows(images.to(device), torch.from_numpy(data.labels).to(device))


def make_task(
    train: ImageRows,
    validation: ImageRows,
    normaliser: Normaliser,
    recipe: ImageRecipe,
    classes: int,
    *,
    mixed: bool,
) -> Task:
    """Return the recipe's task on these images."""
    weights = weigh_classes(recipe.class_weights, train.labels, classes)

    def training(epoch: int, first_step: int) -> Iterator[Batch]:
        order = torch.randperm(
            len(train.labels), generator=generator_for(recipe.seed, Purpose.ORDER, epoch)
        )
        batches = torch.split(order.to(train.labels.device), recipe.batch_size)
        for step, rows in enumerate(batches[first_step:], start=first_step):
            generator = generator_for(recipe.seed, Purpose.DISTORTION, epoch, step)
            yield _make_batch(train, rows, normaliser, recipe.augmentation, generator)

    return Task(
        steps=math.ceil(len(train.labels) / recipe.batch_size),
        training=training,
        validation=lambda: in_order(validation, normaliser),
        loss=choose_loss(recipe, weights),
        chooses_by_f1=weights is not None,
        auxiliary_weight=recipe.auxiliary_weight,
        mixed=mixed,
        rows_are="pictures",
    )


def _make_batch(
    images: ImageRows,
    rows: Tensor,
    normaliser: Normaliser,
    bounds: Augmentation,
    generator: torch.Generator,
) -> Batch:
    moved = crop(images.images[rows], bounds, generator)  # (B, C, H, W)
    lit = shift_colours(moved.float() / 255.0, bounds, generator)
    inputs = normaliser.apply(distort(lit, bounds, generator))
    batch = Batch((cut_out(inputs, bounds, generator),), images.labels[rows])
    return mix(batch, bounds.mixup_alpha, generator)


def in_order(rows: ImageRows, normaliser: Normaliser) -> Iterator[Batch]:
    """Yield each image once, without augmentation."""
    for images, labels in zip(
        torch.split(rows.images, EVALUATION_ROWS),
        torch.split(rows.labels, EVALUATION_ROWS),
        strict=True,
    ):
        yield Batch((normaliser.apply(images.float() / 255.0),), labels)
