import numpy as np
import pytest

from benchmarks import overload
from benchmarks.lib import slow_model
from benchmarks.lib.load_generator import DEADLINE_EXCEEDED, RESET, Record

OK, EXHAUSTED = 0, 8


def record(began_s: list[float], taken_s: list[float], statuses: list[int]) -> Record:
    began = np.array(began_s)
    return Record(
        began, began, began, began + taken_s, [b""] * len(began), 0.01, np.array(statuses)
    )


def test_goodput_counts_answers_within_the_load_only() -> None:
    # The fourth answer comes after the end of the load, the fifth call is due after it.
    found = overload.figures(
        record([0.0, 0.5, 1.0, 1.9, 2.5], [0.1, 1.0, 0.002, 0.2, 0.1], [OK, 4, EXHAUSTED, OK, OK]),
        seconds=2.0,
        capacity_per_s=1.0,
    )

    assert found["offered_per_s"] == 2.0
    assert found["goodput_per_s"] == found["goodput"] == 0.5
    assert found["expired"] == found["refused"] == 0.25
    assert found["RESOURCE_EXHAUSTED"] == 0.25
    assert found["RESOURCE_EXHAUSTED_p99_ms"] == found["refused_p50_ms"] == pytest.approx(2.0)
    assert found["DEADLINE_EXCEEDED_p50_ms"] == pytest.approx(1000)
    assert found["p50_ms"] == pytest.approx(150, abs=51)


def test_a_reset_call_is_refused_under_its_own_name() -> None:
    found = overload.figures(record([0.0], [0.1], [RESET]), seconds=1.0, capacity_per_s=1.0)

    assert found["reset"] == found["refused"] == 1.0


def test_recovery_ends_with_the_last_abnormal_call() -> None:
    found = record(
        [9.0, 10.2, 10.4, 10.6, 10.8], [0.1, 0.1, 0.5, 0.1, 0.1], [4, DEADLINE_EXCEEDED, OK, OK, OK]
    )

    assert overload.recovery_s(found, 10.0, normal_ms=100) == pytest.approx(0.4)
    assert overload.recovery_s(found, 10.0, normal_ms=1000) == pytest.approx(0.2)
    assert overload.recovery_s(found, 11.0, normal_ms=100) == 0.0


def test_a_generator_must_be_in_time_and_have_cpu_time_to_spare() -> None:
    assert overload.generator_kept_up({"late_p99_ms": 1.0, "generator_busy": 0.1})

    assert not overload.generator_kept_up({"late_p99_ms": 100.0, "generator_busy": 0.1})
    assert not overload.generator_kept_up({"late_p99_ms": 1.0, "generator_busy": 0.9})


def test_times_have_the_rate_they_should() -> None:
    times_s = overload.times_s(20, 5, seed=1)

    assert len(times_s) == 100
    assert times_s == sorted(times_s)
    assert 0 <= times_s[0] <= times_s[-1] < 5
    assert times_s == overload.times_s(20, 5, seed=1)


def test_the_slow_model_keeps_the_norm_of_its_rows() -> None:
    rows = slow_model.rows_of(2, seed=3)

    sums = slow_model.expected(rows)

    # Its last step sums a column: every other step is a product with an orthogonal matrix.
    assert sums.shape == rows.shape
    assert np.isfinite(sums).all()
    assert np.abs(sums).max() < 100
