"""Scores against numbers worked out by hand; baselines against known processes."""

import numpy as np
import pytest

from weir.training.forecasting.evaluation import (
    fit_autoregression,
    mase_by_lead,
    naive_error,
    persist,
    rmse_by_lead,
    score,
    summarise,
)

TRUTH = np.array([[1.0, 2.0], [3.0, 4.0]])
GIVEN = np.array([[1.0, 5.0], [5.0, 8.0]])


def test_errors_by_hand() -> None:
    scale = naive_error(np.array([1.0, 3.0, 2.0, 2.0, 7.0]))

    assert scale == (2 + 1 + 0 + 5) / 4
    assert rmse_by_lead(GIVEN, TRUTH) == pytest.approx([np.sqrt(4 / 2), np.sqrt((9 + 16) / 2)])
    assert mase_by_lead(GIVEN, TRUTH, scale) == pytest.approx([2 / 2 / 2, (3 + 4) / 2 / 2])


def test_the_naive_forecast_of_the_training_part_has_a_mase_of_one() -> None:
    values = np.random.default_rng(0).standard_normal(50)

    assert mase_by_lead(values[:-1, None], values[1:, None], naive_error(values)) == pytest.approx(
        [1]
    )


def test_metrics_are_named_by_model_measure_and_lead() -> None:
    metrics = score({"": GIVEN, "ar9": TRUTH}, TRUTH, 2.0)

    assert list(metrics) == [
        *("rmse_1", "rmse_2", "mase_1", "mase_2"),
        *("ar9_rmse_1", "ar9_rmse_2", "ar9_mase_1", "ar9_mase_2"),
    ]
    assert metrics["ar9_rmse_2"] == 0.0
    assert summarise(metrics).splitlines()[0] == "test RMSE 1 ahead 1.414 (ar9 0)"


def test_one_step_is_scored_once() -> None:
    assert list(score({"": GIVEN[:, :1]}, TRUTH[:, :1], 1.0)) == ["rmse_1", "mase_1"]


def second_order(count: int, noise: float) -> np.typing.NDArray[np.float64]:
    """y(t) = 3 + 0.5 y(t-1) - 0.3 y(t-2) + noise."""
    generator = np.random.default_rng(0)
    values = [1.0, 2.0]
    for _ in range(count):
        shock = noise * generator.standard_normal()
        values.append(3.0 + 0.5 * values[-1] - 0.3 * values[-2] + shock)
    return np.array(values)


def test_known_coefficients_are_recovered() -> None:
    fitted = fit_autoregression(second_order(20_000, 1.0), 2)

    np.testing.assert_allclose(fitted.weights, [-0.3, 0.5], atol=0.02)
    assert fitted.bias == pytest.approx(3.0, abs=0.1)


def test_forecast_goes_on_as_the_process_does() -> None:
    values = second_order(30, 0.0)
    fitted = fit_autoregression(values[:20], 2)

    ahead = fitted.forecast(values[None, 10:20], 5)

    np.testing.assert_allclose(ahead, values[None, 20:25], rtol=1e-8)


def test_a_linear_trend_is_forecast_exactly() -> None:
    trend = 5.0 + 2.0 * np.arange(100, dtype=np.float64)

    ahead = fit_autoregression(trend[:50], 9).forecast(trend[None, 41:50], 12)

    np.testing.assert_allclose(ahead, trend[None, 50:62], rtol=1e-8)


def test_persistence_repeats_the_last_value() -> None:
    assert persist(np.array([[1.0, 2.0], [3.0, 4.0]]), 3).tolist() == [[2.0] * 3, [4.0] * 3]
