from collections.abc import Hashable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching import BatchPolicy, LastBatch, delay_s, linger_s, select
from server.errors import ConfigError


@dataclass(eq=False)
class Waiting:
    rows: int
    key: Hashable = "a"


queues = st.lists(
    st.builds(Waiting, rows=st.integers(1, 12), key=st.sampled_from("abc")), max_size=20
)
limits = st.integers(1, 12)


def rows_of(batch: list[Waiting]) -> int:
    return sum(request.rows for request in batch)


def test_nothing_waits_nothing_is_cut() -> None:
    assert select([], 8) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([1, 1, 1], [0, 1, 2], id="all fit"),
        pytest.param([4, 4, 4], [0, 1], id="full to the brim"),
        pytest.param([3, 3, 3, 1], [0, 1], id="no overtaking by a smaller one"),
        pytest.param([8, 1], [0], id="one fills it"),
        pytest.param([9, 1], [0], id="larger than the limit goes alone"),
    ],
)
def test_requests_of_one_key_are_taken_in_order(rows: list[int], expected: list[int]) -> None:
    queue = [Waiting(count) for count in rows]

    batch = select(queue, 8)

    assert batch == [queue[index] for index in expected]


def test_other_keys_are_passed_over() -> None:
    queue = [Waiting(1, "a"), Waiting(1, "b"), Waiting(1, "a"), Waiting(1, "c")]

    assert select(queue, 8) == [queue[0], queue[2]]


@given(queues, limits)
def test_oldest_request_is_always_in_the_batch(queue: list[Waiting], most: int) -> None:
    batch = select(queue, most)

    assert batch[:1] == queue[:1]


@given(queues, limits)
def test_batch_has_one_key_and_no_more_than_its_rows(queue: list[Waiting], most: int) -> None:
    batch = select(queue, most)

    assert len({request.key for request in batch}) <= 1
    assert rows_of(batch) <= most or len(batch) == 1


@given(queues, limits)
def test_batch_is_the_longest_beginning_of_its_key_that_fits(
    queue: list[Waiting], most: int
) -> None:
    batch = select(queue, most)

    same = [request for request in queue if request.key == queue[0].key]
    assert batch == same[: len(batch)]
    if len(batch) < len(same):
        assert rows_of(same[: len(batch) + 1]) > most


@given(queues, limits)
def test_repeated_cuts_serve_everybody_once(queue: list[Waiting], most: int) -> None:
    left = list(queue)
    served: list[Waiting] = []

    while left:
        batch = select(left, most)
        served += batch
        left = [request for request in left if request not in batch]

    assert sorted(map(id, served)) == sorted(map(id, queue))


@pytest.mark.parametrize(
    ("waiting_rows", "now", "expected"),
    [
        pytest.param(8, 10.0, 0.0, id="full"),
        pytest.param(9, 10.0, 0.0, id="over full"),
        pytest.param(1, 10.0, 0.5, id="just arrived"),
        pytest.param(1, 10.25, 0.25, id="half way"),
        pytest.param(1, 10.5, 0.0, id="waited enough"),
        pytest.param(1, 12.0, -1.5, id="overdue"),
    ],
)
def test_delay_ends_when_full_or_when_the_oldest_waited(
    waiting_rows: int, now: float, expected: float
) -> None:
    policy = BatchPolicy(max_rows=8, max_queue_delay_s=0.5)

    assert delay_s(policy, waiting_rows=waiting_rows, oldest_s=10.0, now=now) == expected


def test_without_a_delay_a_batch_is_due_at_once() -> None:
    assert delay_s(BatchPolicy(), waiting_rows=1, oldest_s=10.0, now=10.0) <= 0


LINGERING = BatchPolicy(max_rows=32, linger_share=0.02)


@pytest.mark.parametrize(
    ("waiting_rows", "now", "expected"),
    [
        pytest.param(8, 10.0, 0.02, id="only those who were left"),
        pytest.param(15, 10.015, 0.005, id="one is missing"),
        pytest.param(15, 10.03, -0.01, id="one stays away"),
        pytest.param(16, 10.0, 0.0, id="all are back"),
        pytest.param(32, 10.0, 0.0, id="full"),
    ],
)
def test_session_lingers_for_those_it_answered(
    waiting_rows: int, now: float, expected: float
) -> None:
    last = LastBatch(rows=8, run_s=1.0, ended_s=10.0, left_rows=8)

    pause_s = linger_s(LINGERING, last, waiting_rows=waiting_rows, now=now)

    assert pause_s == pytest.approx(expected)


def test_full_batch_waits_for_nobody() -> None:
    last = LastBatch(rows=32, run_s=1.0, ended_s=10.0, left_rows=5)

    assert linger_s(LINGERING, last, waiting_rows=32, now=10.0) == 0.0


def test_short_runs_are_not_lingered_for() -> None:
    last = LastBatch(rows=8, run_s=0.02, ended_s=10.0, left_rows=0)

    assert linger_s(LINGERING, last, waiting_rows=1, now=10.0) == 0.0


@pytest.mark.parametrize(
    ("max_rows", "max_queue_delay_s", "name"),
    [
        pytest.param(0, 0.0, "max_batch_rows", id="no rows"),
        pytest.param(1, -0.1, "max_queue_delay_s", id="negative delay"),
    ],
)
def test_limits_that_never_cut_a_batch_are_refused(
    max_rows: int, max_queue_delay_s: float, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected"):
        BatchPolicy(max_rows, max_queue_delay_s)
