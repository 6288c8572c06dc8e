"""The baselines against processes whose coefficients are known."""

import numpy as np
import pytest

from weir.training.forecasting.baselines import fit_autoregression, persist


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
