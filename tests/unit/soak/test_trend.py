"""The slope of a series."""

import numpy as np
import pytest

from tests.soak.trend import theil_sen


def test_slope_of_a_line_is_exact_in_spite_of_outliers() -> None:
    times = np.arange(100.0)
    values = 5.0 + 2.0 * times
    values[::10] += 1000.0

    slope = theil_sen(times.tolist(), values.tolist())

    assert slope is not None
    assert slope.value == pytest.approx(2.0, rel=0.05)
    assert slope.low <= slope.value <= slope.high


def test_interval_of_noise_holds_zero() -> None:
    values = np.random.default_rng(0).normal(size=200)

    slope = theil_sen([float(number) for number in range(200)], values.tolist())

    assert slope is not None
    assert slope.low < 0.0 < slope.high


def test_few_points_have_no_slope() -> None:
    assert theil_sen([0.0, 1.0], [0.0, 1.0]) is None
