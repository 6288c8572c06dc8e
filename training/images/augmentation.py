"""Random distortions of training pictures: each call shifts, turns, scales, shears and mirrors anew.

As in LeCun et al. 1998, section III.A ("distortions"), planar affine ones only.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from weir.training.images.recipe import Augmentation


def distort(pictures: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Distort each picture its own way; what comes in from outside is 0, the background.

    Args:
        pictures: (B, C, H, W) float32, on any device.
        bounds: how far at most.
        generator: on the CPU, so that a seed means the same on every device.

    Returns:
        (B, C, H, W); the very pictures given, where nothing is to be resampled.
    """
    if not bounds.is_affine:
        return pictures
    height, width = pictures.shape[2:]
    matrices = draw_affine(len(pictures), bounds, generator)  # (B, 2, 3)
    # grid_sample's axes run from -1 to 1 whatever the sides: a turn must know their ratio.
    matrices[:, 0, 1] *= height / width
    matrices[:, 1, 0] *= width / height
    matrices[:, 0, 2] *= 2.0 / width
    matrices[:, 1, 2] *= 2.0 / height
    grid = functional.affine_grid(
        matrices.to(pictures.device), list(pictures.shape), align_corners=False
    )  # (B, H, W, 2)
    return functional.grid_sample(pictures, grid, padding_mode="zeros", align_corners=False)


def draw_affine(count: int, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Random affine maps (count, 2, 3), in pixels about the centre, from distorted to original."""

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
