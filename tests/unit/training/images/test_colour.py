"""Changes of light, against what they must leave alone."""

import torch

from weir.training.images.colour import shift_colours
from weir.training.images.recipe import Augmentation


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def flat(*values: float, count: int = 500) -> torch.Tensor:
    """Pictures of a single colour: (count, channels, 2, 2)."""
    return torch.tensor(values)[None, :, None, None].expand(count, -1, 2, 2)


def test_no_bounds_change_nothing() -> None:
    pictures = flat(0.2, 0.4, 0.6)

    assert shift_colours(pictures, Augmentation(), generator()) is pictures


def test_grey_of_one_shade_knows_brightness_only() -> None:
    shifted = shift_colours(flat(0.5), Augmentation(colour=0.2), generator())

    factors = shifted[:, 0, 0, 0] / 0.5
    assert torch.equal(shifted, shifted[:, :, :1, :1].expand_as(shifted))
    assert 0.8 <= float(factors.min()) < 0.81 and 1.19 < float(factors.max()) <= 1.2


def test_contrast_keeps_the_mean_between_black_and_white() -> None:
    pictures = torch.tensor([[0.4, 0.6], [0.6, 0.4]]).expand(500, 1, 2, 2)

    shifted = shift_colours(pictures, Augmentation(colour=0.2), generator())

    brightness = shifted.mean(dim=(1, 2, 3)) / 0.5
    contrast = (shifted[:, 0, 0, 1] - shifted[:, 0, 0, 0]) / 0.2 / brightness
    assert 0.8 <= float(contrast.min()) < 0.82 and 1.18 < float(contrast.max()) <= 1.2001
    # Each picture draws its own: the two factors are not the same number.
    assert float((brightness - contrast).abs().max()) > 0.1


def test_saturation_turns_a_colour_about_its_own_grey() -> None:
    shifted = shift_colours(flat(0.6, 0.4, 0.4), Augmentation(colour=0.3), generator())[:, :, 0, 0]

    grey = shifted @ torch.tensor([0.299, 0.587, 0.114])
    distances = (shifted[:, 0] - shifted[:, 1]) / grey
    usual = 0.2 / (0.4 + 0.2 * 0.299)
    # Contrast moves a picture of one colour too, towards its mean over the channels.
    assert float(distances.min()) < 0.6 * usual and float(distances.max()) > 1.4 * usual


def test_light_stays_between_black_and_white() -> None:
    pictures = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    shifted = shift_colours(pictures, Augmentation(colour=0.9), generator())

    assert float(shifted.min()) >= 0.0 and float(shifted.max()) <= 1.0
    assert float(shifted.max()) == 1.0


def test_seed_decides() -> None:
    pictures, bounds = flat(0.2, 0.4, 0.6), Augmentation(colour=0.5)

    once = shift_colours(pictures, bounds, generator())

    assert torch.equal(once, shift_colours(pictures, bounds, generator()))
