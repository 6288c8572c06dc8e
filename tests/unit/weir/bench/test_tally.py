import math
from array import array
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bench.tally import PERCENTILES, Tally, latency, merge, percentile, summarise


@given(st.lists(st.floats(0, 1e3), min_size=1), st.sampled_from(PERCENTILES))
def test_a_percentile_is_the_nearest_rank(values: list[float], rank: float) -> None:
    exact = Fraction(str(rank)) / 100 * len(values)

    assert percentile(values, rank) == sorted(values)[math.ceil(exact) - 1]


def test_latency_names_its_percentiles() -> None:
    named = latency([float(n) for n in range(1, 1001)])

    assert named == {
        "mean": 500.5,
        "p50": 500.0,
        "p90": 900.0,
        "p95": 950.0,
        "p99": 990.0,
        "p99.9": 999.0,
        "max": 1000.0,
    }


def test_nothing_measured_has_no_latency() -> None:
    summary = summarise(Tally(errors=Counter(UNAVAILABLE=3)), duration_s=1.0, rows=1)

    assert summary.latency_s == {}
    assert (summary.answered, summary.calls_per_s, summary.errors) == (0, 0, {"UNAVAILABLE": 3})
    assert summarise(Tally(), duration_s=None, rows=1).calls_per_s == 0


def test_answers_after_the_time_count_as_latency_but_not_as_throughput() -> None:
    tally = Tally(ends_s=array("d", [0.5, 1.5, 2.5]), latencies_s=array("d", [0.1, 0.2, 0.9]))

    summary = summarise(tally, duration_s=2.0, rows=4)

    assert (summary.answered, summary.late) == (3, 1)
    assert (summary.calls_per_s, summary.rows_per_s) == (1.0, 4.0)
    assert summary.latency_s["max"] == 0.9


def test_a_fixed_number_of_calls_takes_until_the_last_answer() -> None:
    tally = Tally(ends_s=array("d", [1.0, 4.0, 2.0]), latencies_s=array("d", [1.0, 1.0, 1.0]))

    assert summarise(tally, duration_s=None, rows=1).calls_per_s == pytest.approx(0.75)


def test_tallies_merge_into_one() -> None:
    one = Tally(array("d", [1]), array("d", [2]), array("d", [3]), Counter(A=1), {"A": "a"})

    whole = merge([one, one, Tally(errors=Counter(A=1, B=1), messages={"B": "b"})])

    assert list(whole.ends_s) == [1, 1] and list(whole.latencies_s) == [2, 2]
    assert list(whole.lateness_s) == [3, 3] and whole.errors == {"A": 3, "B": 1}
    assert whole.messages == {"A": "a", "B": "b"}


def test_only_open_loops_report_lateness() -> None:
    late = Tally(lateness_s=array("d", [0.001] * 99 + [0.5]))

    assert summarise(late, duration_s=1.0, rows=1).lateness_p99_s == 0.001
    assert summarise(Tally(), duration_s=1.0, rows=1).lateness_p99_s is None


def test_what_a_load_explains_is_no_failure() -> None:
    errors = Counter(
        RESOURCE_EXHAUSTED=5, DEADLINE_EXCEEDED=2, NOT_SENT=1, UNAVAILABLE=3, INTERNAL=1
    )

    summary = summarise(Tally(errors=errors), duration_s=1.0, rows=1)

    assert summary.errors == errors
    assert summary.failures == {"UNAVAILABLE": 3, "INTERNAL": 1}
