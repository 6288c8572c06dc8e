"""Augmentation, against movements and mixtures that can be written down."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from weir.training.errors import RecipeError
from weir.training.images.augmentation import (
    crop,
    cut_out,
    distort,
    draw_affine,
    mix,
    shift_colours,
)
from weir.training.images.recipes import Augmentation
from weir.training.loop import Batch, Task, mixup_loss
from weir.training.recipes import make_recipe


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def dot(row: int, column: int, height: int = 20, width: int = 30) -> Tensor:
    """One bright block of 2 x 2 on black: (1, 1, height, width)."""
    picture = torch.zeros(1, 1, height, width)
    picture[0, 0, row : row + 2, column : column + 2] = 1.0
    return picture


def centre(picture: Tensor) -> tuple[float, float]:
    """Centre of brightness, in pixels."""
    rows, columns = picture.sum(dim=1), picture.sum(dim=0)
    return (
        float((rows @ torch.arange(len(rows)).float()) / rows.sum()),
        float((columns @ torch.arange(len(columns)).float()) / columns.sum()),
    )


def test_no_affine_bounds_change_nothing() -> None:
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


def flat(*values: float, count: int = 500) -> torch.Tensor:
    """Pictures of a single colour: (count, channels, 2, 2)."""
    return torch.tensor(values)[None, :, None, None].expand(count, -1, 2, 2)


def test_no_colour_bound_changes_nothing() -> None:
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
    # Brightness and contrast are drawn separately.
    assert float((brightness - contrast).abs().max()) > 0.1


def test_saturation_turns_a_colour_about_its_own_grey() -> None:
    shifted = shift_colours(flat(0.6, 0.4, 0.4), Augmentation(colour=0.3), generator())[:, :, 0, 0]

    grey = shifted @ torch.tensor([0.299, 0.587, 0.114])
    distances = (shifted[:, 0] - shifted[:, 1]) / grey
    usual = 0.2 / (0.4 + 0.2 * 0.299)
    # Contrast also moves a single colour, towards its mean over the channels.
    assert float(distances.min()) < 0.6 * usual and float(distances.max()) > 1.4 * usual


def test_light_stays_between_black_and_white() -> None:
    pictures = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    shifted = shift_colours(pictures, Augmentation(colour=0.9), generator())

    assert float(shifted.min()) >= 0.0 and float(shifted.max()) <= 1.0
    assert float(shifted.max()) == 1.0


def test_the_same_seed_shifts_colours_alike() -> None:
    pictures, bounds = flat(0.2, 0.4, 0.6), Augmentation(colour=0.5)

    once = shift_colours(pictures, bounds, generator())

    assert torch.equal(once, shift_colours(pictures, bounds, generator()))


def numbered(count: int, height: int = 5, width: int = 6) -> Tensor:
    """Pictures of pixel coordinates: (count, 2, height, width) of row and column."""
    rows = torch.arange(height)[:, None].expand(height, width)
    columns = torch.arange(width)[None].expand(height, width)
    return torch.stack([rows, columns]).to(torch.uint8).expand(count, -1, -1, -1)


def test_no_crop_or_cutout_bounds_change_nothing() -> None:
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


def test_the_same_seed_crops_alike() -> None:
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


def batch() -> Batch:
    return Batch((torch.eye(8),), torch.arange(8))


def test_zero_mixup_changes_nothing() -> None:
    rows = batch()

    assert mix(rows, 0.0, torch.Generator()) is rows


@pytest.mark.parametrize("seed", range(5))
def test_each_row_holds_its_own_share_and_its_partners(seed: int) -> None:
    mixed = mix(batch(), 0.4, torch.Generator().manual_seed(seed))

    assert mixed.partners is not None
    own, other = torch.eye(8), torch.eye(8)[mixed.partners.targets]
    share = mixed.partners.share
    torch.testing.assert_close(mixed.inputs[0], share * own + (1 - share) * other)
    assert sorted(mixed.partners.targets.tolist()) == list(range(8))
    assert torch.equal(mixed.targets, torch.arange(8))


def test_loss_is_that_of_soft_targets() -> None:
    """Cross-entropy is linear in its targets: a weighted sum of hard targets is a soft one."""
    mixed = mix(batch(), 1.0, torch.Generator().manual_seed(3))
    assert mixed.partners is not None
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    soft = (
        mixed.partners.share * torch.eye(8)
        + (1 - mixed.partners.share) * torch.eye(8)[mixed.partners.targets]
    )

    task = Task(1, lambda *_: iter(()), lambda: iter(()), functional.cross_entropy)

    torch.testing.assert_close(
        mixup_loss(logits, mixed, task), functional.cross_entropy(logits, soft)
    )


def test_shares_follow_the_beta_distribution() -> None:
    shares = []
    for seed in range(400):
        partners = mix(batch(), 0.2, torch.Generator().manual_seed(seed)).partners
        assert partners is not None
        shares.append(partners.share)

    measured = torch.tensor(shares, dtype=torch.float64)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert float(measured.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(measured.var()) == pytest.approx(1 / (4 * 1.4), abs=0.03)
