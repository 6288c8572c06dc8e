"""Sizes and boxes by hand, and the properties that every size has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.image_geometry import centre_crop, short_side_size

sides = st.integers(1, 65_535)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (341, 256)),
        ((480, 640), (256, 341)),
        ((100, 100), (256, 256)),
        ((5, 2), (640, 256)),
    ],
    ids=str,
)
def test_shorter_side_is_as_asked_and_the_other_in_proportion(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert short_side_size(size, 256) == expected


@given(st.tuples(sides, sides), st.integers(1, 1024))
def test_shorter_side_is_exact_for_every_size(size: tuple[int, int], short_side: int) -> None:
    assert min(short_side_size(size, short_side)) == short_side


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((341, 256), (58, 16, 282, 240)),
        ((224, 224), (0, 0, 224, 224)),
        ((225, 226), (0, 1, 224, 225)),
    ],
    ids=str,
)
def test_crop_lies_around_the_centre(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert centre_crop(size, (224, 224)) == box
