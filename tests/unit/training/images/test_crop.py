"""Crops, mirrors and holes, against movements one can write down."""

import pytest
import torch
from torch import Tensor

from weir.training.errors import RecipeError
from weir.training.images.crop import crop, cut_out
from weir.training.images.recipe import Augmentation
from weir.training.recipes import make_recipe


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def numbered(count: int, height: int = 5, width: int = 6) -> Tensor:
    """Pictures whose every pixel says where it was: (count, 2, height, width) of row and column."""
    rows = torch.arange(height)[:, None].expand(height, width)
    columns = torch.arange(width)[None].expand(height, width)
    return torch.stack([rows, columns]).to(torch.uint8).expand(count, -1, -1, -1)


def test_no_bounds_change_nothing() -> None:
    pictures = numbered(2)

    assert crop(pictures, Augmentation(mirror=True), generator()) is pictures
    assert cut_out(pictures, Augmentation(), generator()) is pictures


def test_each_picture_moves_by_whole_pixels_and_reflects_its_border() -> None:
    cropped = crop(numbered(300), Augmentation(crop_pixels=2), generator())

    def reflected(side: int, move: int) -> list[int]:
        return [min(abs(i + move), 2 * (side - 1) - abs(i + move)) for i in range(side)]

    moves = set()
    for picture in cropped.tolist():
        down = next(m for m in range(-2, 3) if [row[0] for row in picture[0]] == reflected(5, m))
        across = next(m for m in range(-2, 3) if picture[1][0] == reflected(6, m))
        moves.add((down, across))
    assert cropped.dtype == torch.uint8 and cropped.shape == (300, 2, 5, 6)
    assert len(moves) == 25


def test_half_are_mirrored() -> None:
    cropped = crop(numbered(400), Augmentation(crop_pixels=1, mirror=True), generator())

    # Reflected borders hide the direction at the ends, not in the middle.
    rising = (cropped[:, 1, 0, 3] > cropped[:, 1, 0, 2]).float().mean()
    assert 0.4 < float(rising) < 0.6


def test_cutout_blanks_one_square_about_a_pixel_of_the_picture() -> None:
    cut = cut_out(torch.ones(500, 3, 8, 8), Augmentation(cutout_pixels=4), generator())

    holes = (cut == 0.0).all(dim=1)
    assert torch.equal(holes, (cut == 0.0).any(dim=1))
    sizes = holes.flatten(1).sum(dim=1)
    assert set(sizes.tolist()) <= {a * b for a in range(2, 5) for b in range(2, 5)}
    assert int(sizes.max()) == 16 and bool((holes.any(dim=0)).all())


def test_the_same_seed_draws_the_same() -> None:
    bounds = Augmentation(crop_pixels=2, mirror=True, cutout_pixels=3)

    first, again = (crop(numbered(9), bounds, generator()) for _ in range(2))

    assert torch.equal(first, again)


def test_a_mirror_belongs_to_the_crop_or_to_the_resampling() -> None:
    with pytest.raises(RecipeError, match="mirror goes with crop_pixels or with resampling"):
        make_recipe(
            "lenet5",
            "mnist",
            augmentation={"crop_pixels": 2, "mirror": True, "rotation_degrees": 5.0},
        )
