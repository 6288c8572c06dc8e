"""Intervals from errors: the rank by hand, and coverage of values that were not measured."""

import numpy as np
import pytest

from weir.training.forecasting.intervals import LEVEL, bounds, measure_interval, share_within


def test_the_bound_is_the_error_of_the_corrected_rank() -> None:
    errors = np.array([3.0, -1.0, 2.0, -8.0, 4.0, 0.0, 5.0, 6.0, -7.0, 9.0] * 2)

    interval = measure_interval([np.zeros(20)], [errors], is_relative=False)

    # ceil(21 * 0.8) = 17: the 17th of 0 0 1 1 … 9 9.
    width = 8.0 * (1.0 + 0.5 / np.sqrt(20))
    assert interval is not None and interval.level == LEVEL
    assert interval.lower == pytest.approx([-width])
    assert interval.upper == pytest.approx([width])


def test_a_later_step_is_never_surer() -> None:
    zeros = np.zeros(20)

    interval = measure_interval([zeros] * 3, [zeros + 1, zeros + 3, zeros + 2], is_relative=False)

    assert interval is not None
    assert interval.upper[1] == interval.upper[2] == pytest.approx(3 * interval.upper[0])


def test_relative_bounds_are_ratios_of_the_forecast() -> None:
    ratios = np.exp(np.linspace(-0.5, 0.5, 41))

    interval = measure_interval([np.full(41, 10.0)], [10.0 * ratios], is_relative=True)

    assert interval is not None and interval.is_relative
    lower, upper = bounds(np.array([[200.0]]), interval)
    # ceil(42 * 0.8) = 34: the 34th of 0, 0.025, 0.025, 0.05, 0.05, … is 0.425.
    width = 0.425 * (1.0 + 0.5 / np.sqrt(41))
    assert lower[0, 0] == pytest.approx(200.0 * np.exp(-width))
    assert upper[0, 0] == pytest.approx(200.0 * np.exp(width))


@pytest.mark.parametrize("count", [14, 15])
def test_few_errors_of_one_step_make_no_interval(count: int) -> None:
    truth = [np.zeros(30), np.zeros(count)]

    interval = measure_interval([each + 1.0 for each in truth], truth, is_relative=False)

    assert (interval is None) == (count < 15)


def test_new_values_are_covered_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        errors = generator.standard_normal((2, 25)) * [[1.0], [3.0]]
        interval = measure_interval([np.zeros(25)] * 2, list(errors), is_relative=False)
        assert interval is not None
        new = generator.standard_normal((50, 2)) * [1.0, 3.0]
        shares.append(share_within(np.zeros_like(new), new, interval))

    assert np.mean(shares) == pytest.approx(LEVEL, abs=0.05)
