from collections.abc import Iterable

import pytest

from weir.server.scheduling.service_time import Ahead, ServiceTime, answer_s, most_s

EMPTY = ServiceTime(8.0)


def measured(
    runs: Iterable[tuple[float, float]], start: ServiceTime = EMPTY, *, is_full: bool = False
) -> ServiceTime:
    service = start
    for work, seconds in runs:
        service = service.measured(work, seconds, rows=int(work), is_full=is_full)
    return service


def test_fixed_time_and_time_of_a_row_are_found_from_runs_of_several_sizes() -> None:
    sizes = [1, 2, 4, 8, 16, 32] * 20

    service = measured([(work, 0.002 + 0.001 * work) for work in sizes])

    assert service.of(1) == pytest.approx(0.003, rel=0.5)
    assert service.of(32) == pytest.approx(0.034, rel=0.1)


def test_first_run_alone_makes_no_larger_one_slower() -> None:
    """An estimate that is too high would refuse what can be answered."""
    assert measured([(1, 0.01)]).of(32) == pytest.approx(0.01)


def test_many_single_rows_leave_what_is_known_of_full_batches() -> None:
    start = measured([(work, 0.010 + 0.001 * work) for work in [1, 8, 32] * 20])

    service = measured([(1, 0.011)] * 1000, start)

    assert service.of(32) == pytest.approx(start.of(32), rel=0.1)


def test_one_outlier_moves_the_estimate_by_a_fifth_at_most() -> None:
    start = measured([(8, 0.1)] * 50)

    assert measured([(8, 60.0)], start).of(8) <= 1.2001 * start.of(8)


@pytest.mark.parametrize(
    ("before_s", "after_s"), [(0.01, 0.1), (0.1, 0.01)], ids=["slower", "faster"]
)
def test_a_model_that_changes_its_speed_is_followed(before_s: float, after_s: float) -> None:
    start = measured([(8, before_s)] * 50)

    assert measured([(8, after_s)] * 30, start).of(8) == pytest.approx(after_s, rel=0.05)


def test_neither_part_becomes_negative() -> None:
    service = measured([(32, 1.0)] * 20 + [(1, 0.0001)] * 200 + [(32, 0.0002)] * 200)

    assert service.fixed_s >= 0 and service.unit_s >= 0
    assert service.of(32) == pytest.approx(0.0002, rel=0.2)


def test_full_rows_are_those_of_batches_that_leave_others_waiting() -> None:
    """Requests of several rows, or of several keys, fill no batch to its limit."""
    service = measured([(5, 0.1)] * 40, is_full=True)

    assert service.full_rows == pytest.approx(5, rel=0.01)
    assert measured([(5, 0.1)] * 40).full_rows == 8


PER_ROW = ServiceTime(8.0, fixed_s=0.2, unit_s=0.1, largest=8, runs=9)


@pytest.mark.parametrize(
    ("ahead", "expected_s"),
    [
        pytest.param(Ahead(0, 0, 1, 0.0), 0.3, id="free session"),
        pytest.param(Ahead(0, 0, 1, 0.5), 0.8, id="run under way"),
        pytest.param(Ahead(3, 3, 1, 0.5), 0.5 + 0.2 + 0.4, id="shares the next batch"),
        pytest.param(Ahead(8, 8, 1, 0.5), 0.5 + 1.0 + 1.0, id="one batch before"),
        pytest.param(Ahead(20, 20, 1, 0.5), 0.5 + 2.0 + 1.0, id="two batches before"),
        pytest.param(Ahead(32, 32, 2, 0.5), 0.5 + 2.0 + 1.0, id="two sessions"),
    ],
)
def test_answer_comes_after_what_runs_and_waits_and_its_own_run(
    ahead: Ahead, expected_s: float
) -> None:
    assert answer_s(PER_ROW, ahead, rows=1, work=1) == pytest.approx(expected_s)


def test_a_long_row_takes_its_own_time() -> None:
    assert answer_s(PER_ROW, Ahead(0, 0, 1, 0.0), rows=1, work=500) == pytest.approx(50.2)


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("sessions", [1, 4])
@pytest.mark.parametrize("own", [1, 5, 50])
def test_upper_bound_is_one(rows: int, sessions: int, own: int) -> None:
    ahead = Ahead(rows, 3 * rows, sessions, running_s=PER_ROW.of(8))

    assert most_s(PER_ROW, rows, 3 * rows + own) >= answer_s(PER_ROW, ahead, rows=1, work=own)
