"""Random brightness, contrast and saturation of training pictures.

The statistics of a photograph's light say little of what it shows (A. Krizhevsky, I. Sutskever, G. Hinton,
NIPS 2012, section 4.1, vary them too; deviation: by these three factors in place of principal components).
"""

import torch
from torch import Tensor

from weir.training.images.recipe import Augmentation

# How bright red, green and blue look: ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


def shift_colours(pictures: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Change each picture's light its own way.

    Args:
        pictures: (B, C, H, W) of 0 to 1, on any device.
        bounds: `colour` is how far each factor is from 1 at most; where it is 0, nothing is changed.
        generator: on the CPU, so that a seed means the same on every device.

    Returns:
        (B, C, H, W) of 0 to 1.
    """
    if not bounds.colour:
        return pictures
    count = len(pictures)
    factors = 1.0 + (torch.rand(3, count, 1, 1, 1, generator=generator) * 2.0 - 1.0) * bounds.colour
    brightness, contrast, saturation = factors.to(pictures.device)
    if pictures.shape[1] == len(_LUMA):
        luma = torch.tensor(_LUMA, device=pictures.device)[:, None, None]
        grey = (pictures * luma).sum(dim=1, keepdim=True)  # (B, 1, H, W)
        pictures = grey + (pictures - grey) * saturation
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    lit: Tensor = (mean + (pictures - mean) * contrast) * brightness
    return lit.clamp(0.0, 1.0)
