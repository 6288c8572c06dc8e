"""Cheap random distortions of small colour pictures, on bytes and by indices alone: crop, mirror, cutout.

A. Krizhevsky, I. Sutskever, G. Hinton, NIPS 2012, section 4.1 (crops and reflections); T. DeVries, G. Taylor,
"Improved Regularization of Convolutional Neural Networks with Cutout", arXiv:1708.04552.
"""

import torch
from torch import Tensor

from weir.training.images.recipe import Augmentation


def crop(pictures: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Move each picture its own way by whole pixels, and mirror it or not.

    What comes in from outside is the picture's own reflection at its border.

    Args:
        pictures: (B, C, H, W), on any device.
        bounds: `crop_pixels` is how far at most; where it is 0, nothing is changed.
        generator: on the CPU, so that a seed means the same on every device.

    Returns:
        (B, C, H, W) of the same type.
    """
    if not bounds.crop_pixels:
        return pictures
    count, height, width = len(pictures), pictures.shape[2], pictures.shape[3]
    rows = _window(count, height, bounds.crop_pixels, generator)  # (B, H)
    columns = _window(count, width, bounds.crop_pixels, generator)  # (B, W)
    if bounds.mirror:
        mirrored = torch.randint(2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)  # (B, W)
    places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H * W)
    places = places[:, None].to(pictures.device).expand(-1, pictures.shape[1], -1)  # (B, C, H * W)
    return pictures.flatten(2).gather(2, places).view_as(pictures)  # (B, C, H, W)


def _window(count: int, side: int, pixels: int, generator: torch.Generator) -> Tensor:
    """Where each of `side` pixels is taken from, reflected into the picture: (count, side)."""
    moves = torch.randint(-pixels, pixels + 1, (count, 1), generator=generator)
    places = (torch.arange(side) + moves).abs()
    return torch.where(places < side, places, 2 * (side - 1) - places)


def cut_out(pictures: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Blank one square of each normalised picture with 0, the mean colour; part of it may lie outside.

    Args:
        pictures: (B, C, H, W) float32.
        bounds: `cutout_pixels` is the square's side; where it is 0, nothing is changed.
        generator: on the CPU.
    """
    if not bounds.cutout_pixels:
        return pictures
    count, height, width = len(pictures), pictures.shape[2], pictures.shape[3]

    def inside(side: int) -> Tensor:
        first = torch.randint(side, (count, 1), generator=generator) - bounds.cutout_pixels // 2
        places = torch.arange(side) - first
        return (places >= 0) & (places < bounds.cutout_pixels)  # (B, side)

    kept = ~(inside(height)[:, :, None] & inside(width)[:, None, :])  # (B, H, W)
    return pictures * kept[:, None].to(pictures.device)
