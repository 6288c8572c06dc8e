"""Random augmentation of training images: affine maps, colour, crop, cutout and mixup.

Each image of a batch draws its own distortion. Generators are on the CPU, so that a seed means the
same on every device. A bound of 0 changes nothing.

- Affine: LeCun et al. 1998, section III.A; planar affine distortions only.
- Crop and mirror: A. Krizhevsky, I. Sutskever, G. Hinton, NIPS 2012, section 4.1.
- Colour: section 4.1 varies it too. Deviation: by three factors instead of principal components.
- Cutout: T. DeVries, G. Taylor, "Improved Regularization of Convolutional Neural Networks with
  Cutout", arXiv:1708.04552.
- mixup: H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization",
  arXiv:1710.09412. Deviation, as in the paper's own code: one share for the whole batch.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from weir.training.images.recipes import Augmentation
from weir.training.loop import Batch, MixupPartners

# Brightness of red, green and blue: ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


def distort(images: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Shift, rotate, scale, shear and mirror images (B, C, H, W) of float32; the outside is 0."""
    if not bounds.is_affine:
        return images
    height, width = images.shape[2:]
    matrices = draw_affine(len(images), bounds, generator)  # (B, 2, 3)
    # grid_sample's axes run from -1 to 1 for every size: a rotation needs the aspect ratio.
    matrices[:, 0, 1] *= height / width
    matrices[:, 1, 0] *= width / height
    matrices[:, 0, 2] *= 2.0 / width
    matrices[:, 1, 2] *= 2.0 / height
    grid = functional.affine_grid(
        matrices.to(images.device), list(images.shape), align_corners=False
    )  # (B, H, W, 2)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def draw_affine(count: int, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw affine maps (count, 2, 3) from distorted to original, in pixels about the centre."""

    def uniform(bound: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2.0 - 1.0) * bound

    angle = uniform(math.radians(bounds.rotation_degrees))
    zoom_x, zoom_y = 1.0 + uniform(bounds.scale), 1.0 + uniform(bounds.scale)
    shear, shift_x, shift_y = (
        uniform(bounds.shear),
        uniform(bounds.shift_pixels),
        uniform(bounds.shift_pixels),
    )
    mirror = torch.ones(count)
    if bounds.mirror:
        mirror = torch.randint(2, (count,), generator=generator) * 2.0 - 1.0
    cosine, sine = angle.cos(), angle.sin()
    across = torch.stack([cosine * zoom_x * mirror, (shear - sine) * zoom_y, shift_x], dim=1)
    down = torch.stack([sine * zoom_x * mirror, cosine * zoom_y, shift_y], dim=1)
    return torch.stack([across, down], dim=1)  # (count, 2, 3)


def shift_colours(images: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of images (B, C, H, W) of 0 to 1.

    Each factor is at most `bounds.colour` from 1. Returns (B, C, H, W) of 0 to 1.
    """
    if not bounds.colour:
        return images
    count = len(images)
    factors = 1.0 + (torch.rand(3, count, 1, 1, 1, generator=generator) * 2.0 - 1.0) * bounds.colour
    brightness, contrast, saturation = factors.to(images.device)
    if images.shape[1] == len(_LUMA):
        luma = torch.tensor(_LUMA, device=images.device)[:, None, None]
        grey = (images * luma).sum(dim=1, keepdim=True)  # (B, 1, H, W)
        images = grey + (images - grey) * saturation
    mean = images.mean(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    lit: Tensor = (mean + (images - mean) * contrast) * brightness
    return lit.clamp(0.0, 1.0)


def crop(images: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Move images (B, C, H, W) by up to `crop_pixels` whole pixels, and mirror some of them.

    The border reflects the image. Returns (B, C, H, W) of the same type: only indices change.
    """
    if not bounds.crop_pixels:
        return images
    count, height, width = len(images), images.shape[2], images.shape[3]
    rows = _window(count, height, bounds.crop_pixels, generator)  # (B, H)
    columns = _window(count, width, bounds.crop_pixels, generator)  # (B, W)
    if bounds.mirror:
        mirrored = torch.randint(2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)  # (B, W)
    sources = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H * W)
    sources = sources[:, None].to(images.device).expand(-1, images.shape[1], -1)  # (B, C, H * W)
    return images.flatten(2).gather(2, sources).view_as(images)  # (B, C, H, W)


def _window(count: int, side: int, pixels: int, generator: torch.Generator) -> Tensor:
    """Draw the source of each of `side` pixels, reflected at the border: (count, side)."""
    moves = torch.randint(-pixels, pixels + 1, (count, 1), generator=generator)
    sources = (torch.arange(side) + moves).abs()
    return torch.where(sources < side, sources, 2 * (side - 1) - sources)


def cut_out(images: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Fill one square of each normalised image (B, C, H, W) with 0, the mean colour.

    Its side is `bounds.cutout_pixels`; it may lie partly outside.
    """
    if not bounds.cutout_pixels:
        return images
    count, height, width = len(images), images.shape[2], images.shape[3]

    def inside(side: int) -> Tensor:
        first = torch.randint(side, (count, 1), generator=generator) - bounds.cutout_pixels // 2
        sources = torch.arange(side) - first
        return (sources >= 0) & (sources < bounds.cutout_pixels)  # (B, side)

    kept = ~(inside(height)[:, :, None] & inside(width)[:, None, :])  # (B, H, W)
    return images * kept[:, None].to(images.device)


def mix(batch: Batch, alpha: float, generator: torch.Generator) -> Batch:
    """Mix each row of float32 with another row of the batch; targets are (B,).

    The share comes from the symmetric beta distribution of `alpha`.
    """
    if not alpha:
        return batch
    order = torch.randperm(len(batch.targets), generator=generator).to(batch.targets.device)
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    inputs = tuple(each * share + each[order] * (1.0 - share) for each in batch.inputs)
    return Batch(inputs, batch.targets, MixupPartners(batch.targets[order], share))
