"""Pictures in memory → batches of distorted, normalised ones."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from weir.training.data import ImageData
from weir.training.data.images import Images
from weir.training.images.augmentation import distort
from weir.training.images.colour import shift_colours
from weir.training.images.crop import crop, cut_out
from weir.training.images.mixup import mix
from weir.training.images.recipe import Augmentation, PictureRecipe
from weir.training.loop import Batch, Task
from weir.training.losses import choose_loss
from weir.training.reproducibility import Purpose, generator_for

EVALUATION_ROWS = 512


@dataclass(frozen=True, slots=True)
class Normaliser:
    """normalised = (uint8 / 255 - mean) / std, with a mean and a std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, scaled: Tensor) -> Tensor:
        """(B, C, H, W) of 0 to 1 to the same, normalised."""
        mean = torch.tensor(self.mean, device=scaled.device)[:, None, None]
        std = torch.tensor(self.std, device=scaled.device)[:, None, None]
        return (scaled - mean) / std


def measure_normaliser(images: Images, recipe: PictureRecipe) -> Normaliser:
    """The recipe's own, or the mean and standard deviation of these pictures' channels.

    Args:
        images: uint8 (n, height, width, channels).
        recipe: whose `normalisation`, where it has one, is taken for every channel.
    """
    channels = images.shape[3]
    if recipe.normalisation:
        fixed = recipe.normalisation
        return Normaliser((fixed.mean,) * channels, (fixed.std,) * channels)
    # Sums over the 256 values are exact and need no copy of the pictures in floating point.
    values = torch.arange(256, dtype=torch.float64) / 255.0
    means, stds = [], []
    for channel in range(channels):
        pixels = torch.from_numpy(images[..., channel].reshape(-1))
        shares = torch.bincount(pixels, minlength=256).double() / len(pixels)
        mean = float(values @ shares)
        means.append(mean)
        # Pictures of a single colour would divide by 0.
        stds.append(max(float(((values - mean) ** 2) @ shares) ** 0.5, 1.0 / 255.0))
    return Normaliser(tuple(means), tuple(stds))


@dataclass(frozen=True, slots=True)
class Pictures:
    """One split on the device: uint8 (n, C, H, W) and labels (n,)."""

    images: Tensor
    labels: Tensor


def to_device(data: ImageData, device: torch.device) -> Pictures:
    """Move a split, channels first."""
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous()
    return Pictures(images.to(device), torch.from_numpy(data.labels).to(device))


def make_task(
    train: Pictures,
    validation: Pictures,
    normaliser: Normaliser,
    recipe: PictureRecipe,
    *,
    mixed: bool,
) -> Task:
    """The recipe's task on these pictures."""

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
        loss=choose_loss(recipe),
        auxiliary_weight=recipe.auxiliary_weight,
        mixed=mixed,
        rows_are="pictures",
    )


def _make_batch(
    pictures: Pictures,
    rows: Tensor,
    normaliser: Normaliser,
    bounds: Augmentation,
    generator: torch.Generator,
) -> Batch:
    moved = crop(pictures.images[rows], bounds, generator)  # (B, C, H, W)
    lit = shift_colours(moved.float() / 255.0, bounds, generator)
    inputs = normaliser.apply(distort(lit, bounds, generator))
    batch = Batch((cut_out(inputs, bounds, generator),), pictures.labels[rows])
    return mix(batch, bounds.mixup_alpha, generator)


def in_order(pictures: Pictures, normaliser: Normaliser) -> Iterator[Batch]:
    """Each picture once, as it is."""
    for images, labels in zip(
        torch.split(pictures.images, EVALUATION_ROWS),
        torch.split(pictures.labels, EVALUATION_ROWS),
        strict=True,
    ):
        yield Batch((normaliser.apply(images.float() / 255.0),), labels)
