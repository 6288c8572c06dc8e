"""Distortions, against movements one can write down."""

import pytest
import torch
from torch import Tensor

from weir.training.images.augmentation import distort, draw_affine
from weir.training.images.recipe import Augmentation


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def dot(row: int, column: int, height: int = 20, width: int = 30) -> Tensor:
    """One bright block of 2 x 2 on black: (1, 1, height, width)."""
    picture = torch.zeros(1, 1, height, width)
    picture[0, 0, row : row + 2, column : column + 2] = 1.0
    return picture


def centre(picture: Tensor) -> tuple[float, float]:
    """Where the light is, in pixels."""
    rows, columns = picture.sum(dim=1), picture.sum(dim=0)
    return (
        float((rows @ torch.arange(len(rows)).float()) / rows.sum()),
        float((columns @ torch.arange(len(columns)).float()) / columns.sum()),
    )


def test_no_bounds_change_nothing() -> None:
    pictures = torch.rand(2, 3, 5, 7)

    assert distort(pictures, Augmentation(), generator()) is pictures


def test_a_shift_moves_by_the_pixels_drawn() -> None:
    bounds = Augmentation(shift_pixels=4.0)
    matrix = draw_affine(1, bounds, generator())[0]
    across, down = float(matrix[0, 2]), float(matrix[1, 2])

    row, column = centre(distort(dot(9, 14), bounds, generator())[0, 0])

    assert (row, column) == pytest.approx((9.5 - down, 14.5 - across), abs=1e-3)
    assert max(abs(across), abs(down)) <= 4.0


def test_a_turn_keeps_distances_in_a_picture_that_is_not_square() -> None:
    pictures = dot(9, 20).expand(50, -1, -1, -1)

    turned = distort(pictures, Augmentation(rotation_degrees=90.0), generator())

    places = [centre(picture[0]) for picture in turned]
    assert [(row - 9.5) ** 2 + (column - 14.5) ** 2 for row, column in places] == pytest.approx(
        [36.0] * 50, rel=0.03
    )
    assert min(row for row, _ in places) < 5.0 and max(row for row, _ in places) > 14.0
    assert all(column > 14.0 for _, column in places)


def test_mirroring_is_left_for_right_in_about_half() -> None:
    pictures = dot(4, 5).expand(200, -1, -1, -1)

    mirrored = distort(pictures, Augmentation(mirror=True), generator())

    columns = [centre(picture[0])[1] for picture in mirrored]
    flipped = sum(column == pytest.approx(29 - 5.5, abs=1e-3) for column in columns)
    kept = sum(column == pytest.approx(5.5, abs=1e-3) for column in columns)
    assert flipped + kept == 200 and 70 < flipped < 130


def test_scale_and_shear_stay_within_their_bounds() -> None:
    matrices = draw_affine(500, Augmentation(scale=0.2, shear=0.1), generator())

    assert 0.8 <= matrices[:, 0, 0].min() < 0.85 and 1.15 < matrices[:, 0, 0].max() <= 1.2
    assert matrices[:, 0, 1].abs().max() <= 0.12 and (matrices[:, 1, 0] == 0).all()
