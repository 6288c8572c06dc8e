import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bench.plan import Plan, due_times_s
from weir.client.errors import UsageError


def plan(**changes: object) -> Plan:
    return Plan(**{"target": "t", "path": "/p", "body": b"b", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"concurrency": 0},
        {"connections": 0},
        {"requests": 0},
        {"rate_per_s": 0.0},
        {"duration_s": 0.0},
        {"timeout_s": -1.0},
        {"concurrency": 2, "connections": 3},
    ],
    ids=str,
)
def test_a_load_that_makes_no_sense_is_refused_by_name(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(reversed(changes))).removesuffix("_s")):
        plan(**changes)


@given(st.integers(1, 6), st.integers(6, 99), st.integers(6, 99))
def test_shares_add_up_to_the_whole(processes: int, concurrency: int, requests: int) -> None:
    shares = plan(concurrency=concurrency, requests=requests).shares(processes)

    assert sum(share.concurrency for share in shares) == concurrency
    assert sum(share.requests or 0 for share in shares) == requests
    assert len({share.seed for share in shares}) == processes


def test_the_rate_of_an_open_loop_is_shared() -> None:
    shares = plan(rate_per_s=100.0, concurrency=1).shares(4)

    assert [share.rate_per_s for share in shares] == [25.0] * 4


@pytest.mark.parametrize("changes", [{"concurrency": 1}, {"requests": 1}], ids=str)
def test_no_process_is_left_without_a_share(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="must be at least 2"):
        plan(**changes).shares(2)


def test_calls_of_an_open_loop_are_due_at_its_rate() -> None:
    times_s = list(due_times_s(plan(rate_per_s=1000.0, duration_s=20.0, warmup_s=1.0)))
    gaps_s = [later - sooner for sooner, later in itertools.pairwise(times_s)]
    mean_s = sum(gaps_s) / len(gaps_s)

    assert times_s == sorted(times_s)
    assert -1.0 <= times_s[0] < -0.9 and 19.9 < times_s[-1] < 20.0
    assert mean_s == pytest.approx(0.001, rel=0.05)
    # Of a Poisson process, and of no steadier one, mean and deviation of the gaps are the same.
    variance = sum((gap_s - mean_s) ** 2 for gap_s in gaps_s) / len(gaps_s)
    assert variance**0.5 == pytest.approx(mean_s, rel=0.1)


def test_the_seed_decides_the_times() -> None:
    def times(seed: int) -> list[float]:
        return list(due_times_s(plan(rate_per_s=50.0, seed=seed)))

    assert times(1) == times(1) != times(2)


def test_so_many_requests_are_due_after_the_warm_up() -> None:
    times_s = list(due_times_s(plan(rate_per_s=100.0, requests=30, warmup_s=0.5)))

    assert sum(time_s >= 0 for time_s in times_s) == 30
    assert min(times_s) < 0


def test_a_closed_loop_has_no_due_times() -> None:
    with pytest.raises(UsageError):
        next(due_times_s(plan()))
