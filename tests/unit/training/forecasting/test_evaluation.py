"""Scores against numbers worked out by hand."""

import numpy as np
import pytest

from weir.training.forecasting.evaluation import (
    mase_by_lead,
    naive_error,
    rmse_by_lead,
    score,
    tell,
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


def test_metrics_are_named_by_who_measure_and_lead() -> None:
    metrics = score({"": GIVEN, "ar9": TRUTH}, TRUTH, 2.0)

    assert list(metrics) == [
        "rmse_1", "rmse_2", "mase_1", "mase_2", "ar9_rmse_1", "ar9_rmse_2", "ar9_mase_1", "ar9_mase_2",
    ]  # fmt: skip
    assert metrics["ar9_rmse_2"] == 0.0
    assert tell(metrics).splitlines()[0] == "test RMSE 1 ahead 1.414 (ar9 0)"


def test_one_step_is_told_once() -> None:
    assert list(score({"": GIVEN[:, :1]}, TRUTH[:, :1], 1.0)) == ["rmse_1", "mase_1"]
