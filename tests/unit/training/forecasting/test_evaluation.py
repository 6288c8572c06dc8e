"""Scores against numbers worked out by hand; baselines against known processes."""

import numpy as np
import pytest

from weir.training.forecasting.evaluation import (
    compare,
    fit_autoregression,
    forecast_baselines,
    mase_by_lead,
    naive_error,
    persist,
    repeat_season,
    rmse_by_lead,
    score,
    summarise,
)
from weir.training.forecasting.windows import Parts

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
        *("rmse", "rmse_1", "rmse_2", "mase", "mase_1", "mase_2"),
        *("ar9_rmse", "ar9_rmse_1", "ar9_rmse_2", "ar9_mase", "ar9_mase_1", "ar9_mase_2"),
    ]
    assert metrics["ar9_rmse_2"] == 0.0


def test_errors_over_all_steps_by_hand() -> None:
    metrics = score({"": GIVEN}, TRUTH, 2.0)

    assert metrics["rmse"] == pytest.approx(np.sqrt((4 + 9 + 16) / 4))
    assert metrics["mase"] == pytest.approx((2 + 3 + 4) / 4 / 2.0)


def test_one_step_is_scored_once() -> None:
    assert list(score({"": GIVEN[:, :1]}, TRUTH[:, :1], 1.0)) == [
        *("rmse", "rmse_1", "mase", "mase_1")
    ]


def test_the_summary_begins_with_the_whole_horizon() -> None:
    metrics = {
        **score({"": GIVEN, "ar9": TRUTH, "season": GIVEN + 3.0}, TRUTH, 2.0),
        "coverage": 0.75,
    }

    assert summarise(metrics, 4, 2).splitlines()[:3] == [
        "test RMSE over 2 steps 2.693 (AR(9) 0, 4 steps before 5.454)",
        "     75.0% of the values within the 80% interval",
        "     RMSE 1 ahead 1.414 (AR(9) 0, 4 steps before 4.123)",
    ]


def test_the_summary_of_a_run_of_before_has_what_it_measured() -> None:
    before = {"rmse_1": 2.0, "rmse_12": 3.0, "ar9_rmse_1": 1.0, "ar9_rmse_12": 4.0}

    assert summarise(before, None, 12) == (
        "test RMSE 1 ahead 2 (AR(9) 1)\n     RMSE 12 ahead 3 (AR(9) 4)"
    )
    assert compare(before, None) is None


@pytest.mark.parametrize(
    ("baselines", "line"),
    [
        ({"ar9_rmse": 4.0, "season_rmse": 3.0}, None),
        (
            {"ar9_rmse": 1.9, "persistence_rmse": 5.0},
            (
                "not better than AR(9) over the whole horizon: RMSE 2, AR(9) 1.9; "
                "try weir train ar --lags 9"
            ),
        ),
        (
            {"ar9_rmse": 4.0, "season_rmse": 1.0},
            (
                "not better than the value of 12 steps before over the whole horizon: RMSE 2, "
                "the value of 12 steps before 1; use that value, or try weir train ar, "
                "or more seasons of data"
            ),
        ),
        (
            {"ar9_rmse": 4.0, "persistence_rmse": 2.0},
            (
                "not better than the last value over the whole horizon: RMSE 2, the last value 2; "
                "use that value"
            ),
        ),
    ],
    ids=["better", "ar", "season", "persistence"],
)
def test_a_run_that_loses_says_to_what(baselines: dict[str, float], line: str | None) -> None:
    assert compare({"rmse": 2.0, **baselines}, 12) == line


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


def test_a_series_without_a_season_is_advised_to_look_for_one() -> None:
    line = compare({"rmse": 2.0, "persistence_rmse": 1.0}, 0)

    assert line is not None
    assert line.endswith("; use that value, or try --season N if the series repeats")


def test_last_season_is_repeated_beyond_its_length() -> None:
    assert repeat_season(np.array([[9.0, 1.0, 2.0, 3.0]]), 3, 5).tolist() == [
        [1.0, 2.0, 3.0, 1.0, 2.0]
    ]


def test_baselines_forecast_each_row_of_the_test_part() -> None:
    values = np.arange(60.0) % 5 + 100.0
    parts = Parts(train_end=40, validation_end=50, baseline_end=42)

    found = forecast_baselines(values, parts, horizon=3, season=5)

    truth = np.array([values[origin : origin + 3] for origin in range(50, 58)])
    assert set(found) == {"ar9", "persistence", "season"}
    np.testing.assert_allclose(found["season"], truth)
    np.testing.assert_allclose(found["ar9"], truth, atol=1e-6)
    np.testing.assert_allclose(found["persistence"], np.repeat(values[49:57, None], 3, axis=1))
    assert set(forecast_baselines(values, parts, horizon=3, season=0)) == {"ar9", "persistence"}
