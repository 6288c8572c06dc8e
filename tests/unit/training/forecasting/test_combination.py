"""Combinations of linear forecasts, beside numpy's own fits and known processes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from weir.training.forecasting.combination import Combination, choose_lags, combine, unroll
from weir.training.forecasting.evaluation import AutoRegression
from weir.training.forecasting.windows import Parts

Numbers = NDArray[np.float64]
HORIZON = 12


def parts_of(values: Numbers) -> Parts:
    count = len(values)
    return Parts(int(0.6 * count), int(0.8 * count), int(0.6 * count))


def fit(values: Numbers, season: int, lags: int | None = None) -> Combination:
    parts = parts_of(values)
    lags = lags or choose_lags(parts.train_end, season, HORIZON, 36)
    return combine(values, parts, season=season, horizon=HORIZON, lags=lags, most=36)


def error_of(found: Combination, values: Numbers) -> float:
    """RMSE over the whole horizon from every step of the last fifth."""
    first, lags = parts_of(values).validation_end, len(found.regression.weights)
    origins = np.arange(first, len(values) - HORIZON + 1)
    histories = values[origins[:, None] + np.arange(-lags, 0)]
    truth = values[origins[:, None] + np.arange(HORIZON)]
    read = np.log(histories) if found.is_logarithm else histories
    ahead = found.regression.forecast(read, HORIZON)[:, -HORIZON:]
    errors = (np.exp(ahead) if found.is_logarithm else ahead) - truth
    return float(np.sqrt(np.square(errors).mean()))


def of_last_season(values: Numbers, season: int) -> float:
    first = parts_of(values).validation_end
    origins = np.arange(first, len(values) - HORIZON + 1)
    steps = np.arange(HORIZON)
    before = values[origins[:, None] - season + steps % season]
    return float(np.sqrt(np.square(before - values[origins[:, None] + steps]).mean()))


def seasonal(season: int, count: int, noise: float, seed: int) -> Numbers:
    generator = np.random.default_rng([season, count, seed])
    phase = 2.0 * np.pi * np.arange(count) / season
    shape = np.sin(phase) + 0.5 * np.cos(2.0 * phase + generator.uniform(0, 6))
    return 100.0 + 12.0 * shape + noise * generator.standard_normal(count)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("season", "count"), [(7, 100), (12, 200), (24, 500), (52, 1500)])
def test_noise_is_averaged_over_seasons(season: int, count: int, seed: int) -> None:
    values = seasonal(season, count, 5.0, seed)

    # The error of last season's value has twice the noise's variance.
    assert error_of(fit(values, season), values) < 0.95 * of_last_season(values, season)


def test_a_season_that_repeats_exactly_goes_on() -> None:
    values = np.tile(np.array([5.0, 9.0, 1.0, 4.0, 7.0, 7.0, 2.0]), 20)

    assert error_of(fit(values, 7), values) < 0.05


def test_a_random_walk_is_nearly_persistence() -> None:
    values = 100.0 + np.random.default_rng(3).standard_normal(400).cumsum()

    found = fit(values, 0)

    assert not found.is_logarithm or values.min() > 0.0
    assert found.regression.weights.sum() == pytest.approx(1.0, abs=0.03)
    steps = np.arange(HORIZON)
    origins = np.arange(320, 400 - HORIZON + 1)
    naive = values[origins - 1][:, None] - values[origins[:, None] + steps]
    assert error_of(found, values) < 1.1 * np.sqrt(np.square(naive).mean())


@pytest.mark.parametrize("seed", range(3))
def test_a_season_that_grows_with_its_level_is_read_as_logarithms(seed: int) -> None:
    generator = np.random.default_rng(seed)
    level = (0.1 * generator.standard_normal(300)).cumsum()
    season = np.resize(generator.normal(0.0, 0.5, 12), 300)

    assert fit(np.exp(level + season), 12).is_logarithm


def test_values_of_0_have_no_logarithms() -> None:
    values = np.maximum(seasonal(12, 240, 2.0, 0) - 95.0, 0.0)

    assert not fit(values, 12).is_logarithm


def test_the_test_part_changes_nothing() -> None:
    values = seasonal(12, 200, 5.0, 0)
    changed = values.copy()
    changed[160:] = -1e6

    before, after = fit(values, 12), fit(changed, 12)

    np.testing.assert_array_equal(before.regression.weights, after.regression.weights)
    assert (before.regression.bias, before.is_logarithm, before.differenced) == (
        after.regression.bias,
        after.is_logarithm,
        after.differenced,
    )


@pytest.mark.parametrize("lags", [1, 2, 5, 12, 40])
def test_only_the_lags_that_are_given_are_read(lags: int) -> None:
    found = fit(seasonal(12, 300, 5.0, 0), 12, lags)

    assert len(found.regression.weights) == lags
    assert np.isfinite(found.regression.weights).all()


def test_what_was_constant_at_first_is_fitted_too() -> None:
    values = np.concatenate([np.full(100, 3.0), seasonal(12, 100, 1.0, 0)])

    assert np.isfinite(fit(values, 0).regression.weights).all()


@pytest.mark.parametrize("lags", [1, 3, 7])
def test_unrolled_weights_forecast_what_feeding_back_does(lags: int) -> None:
    generator = np.random.default_rng(lags)
    regression = AutoRegression(generator.normal(0, 0.5, lags), 0.7)
    histories = generator.standard_normal((20, lags))

    weights, biases = unroll(regression, 6)

    np.testing.assert_allclose(
        histories @ weights.T + biases, regression.forecast(histories, 6)[:, -6:], rtol=1e-9
    )
