"""Seasons of series whose season is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from weir.training.forecasting.season import find_season


def seasonal(season: int, count: int, noise: float, seed: int) -> NDArray[np.float64]:
    """Level, trend, two harmonics of the season with a deviation of 10, and noise."""
    generator = np.random.default_rng([season, count, seed])
    phase = 2.0 * np.pi * np.arange(count) / season
    shape = np.sin(phase + generator.uniform(0, 6)) + 0.6 * np.sin(2 * phase)
    trend = 0.05 * np.arange(count)
    return 100.0 + trend + 12.0 * shape + noise * generator.standard_normal(count)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("season", "count"), [(7, 100), (12, 100), (12, 500), (24, 300), (52, 500), (52, 5000)]
)
def test_a_season_is_found_in_noise(season: int, count: int, seed: int) -> None:
    assert find_season(seasonal(season, count, 4.0, seed)) == season


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [100, 1000])
def test_noise_and_random_walks_have_none(count: int, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(count)

    assert find_season(noise.cumsum()) == 0
    assert find_season(noise) == 0


@pytest.mark.parametrize(
    "values",
    [np.zeros(50), np.arange(50.0), np.array([1.0, 2.0, 1.0]), np.arange(17.0) % 6],
    ids=["constant", "line", "three", "two-seasons"],
)
def test_what_repeats_less_than_three_times_has_none(values: NDArray[np.float64]) -> None:
    assert find_season(values) == 0
