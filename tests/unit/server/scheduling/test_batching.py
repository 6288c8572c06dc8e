from collections.abc import Hashable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.server.errors import ConfigError
from weir.server.runtime.collate import rounded_up
from weir.server.scheduling.batching import BatchPolicy, LastBatch, delay_s, regroup_wait_s, select


@dataclass(eq=False)
class Waiting:
    rows: int
    key: Hashable = "a"
    length: int = 0


queues = st.lists(
    st.builds(Waiting, rows=st.integers(1, 12), key=st.sampled_from("abc")), max_size=20
)
limits = st.builds(BatchPolicy, st.integers(1, 12))
sentences = st.lists(
    st.builds(
        Waiting, rows=st.integers(1, 4), key=st.sampled_from("ab"), length=st.integers(1, 90)
    ),
    min_size=1,
    max_size=24,
)
budgets = st.builds(
    BatchPolicy,
    st.integers(1, 12),
    max_tokens=st.none() | st.integers(1, 200),
    step_rows=st.sampled_from([0.0, 0.5, 2.0, 64.0]),
)


def rows_of(batch: list[Waiting]) -> int:
    return sum(request.rows for request in batch)


def test_nothing_waits_nothing_is_cut() -> None:
    assert select([], BatchPolicy(8)) == []


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

    batch = select(queue, BatchPolicy(8))

    assert batch == [queue[index] for index in expected]


def test_other_keys_are_passed_over() -> None:
    queue = [Waiting(1, "a"), Waiting(1, "b"), Waiting(1, "a"), Waiting(1, "c")]

    assert select(queue, BatchPolicy(8)) == [queue[0], queue[2]]


def test_request_without_a_key_runs_alone() -> None:
    keyed, first, second = Waiting(1), Waiting(1, key=None), Waiting(1, key=None)
    policy = BatchPolicy(8)

    assert select([first, second, keyed], policy) == [first]
    assert select([keyed, first, keyed, second], policy) == [keyed, keyed]


@given(queues, limits)
def test_oldest_request_is_always_in_the_batch(queue: list[Waiting], policy: BatchPolicy) -> None:
    batch = select(queue, policy)

    assert batch[:1] == queue[:1]


@given(queues, limits)
def test_batch_has_one_key_and_no_more_than_its_rows(
    queue: list[Waiting], policy: BatchPolicy
) -> None:
    batch = select(queue, policy)

    assert len({request.key for request in batch}) <= 1
    assert rows_of(batch) <= policy.max_rows or len(batch) == 1


@given(queues, limits)
def test_batch_is_the_longest_beginning_of_its_key_that_fits(
    queue: list[Waiting], policy: BatchPolicy
) -> None:
    batch = select(queue, policy)

    same = [request for request in queue if request.key == queue[0].key]
    assert batch == same[: len(batch)]
    if len(batch) < len(same):
        assert rows_of(same[: len(batch) + 1]) > policy.max_rows


@given(queues, limits)
def test_repeated_cuts_serve_everybody_once(queue: list[Waiting], policy: BatchPolicy) -> None:
    left = list(queue)
    served: list[Waiting] = []

    while left:
        batch = select(left, policy)
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

    pause_s = delay_s(policy, waiting_rows=waiting_rows, waiting_tokens=0, oldest_s=10.0, now=now)

    assert pause_s == expected


def test_without_a_delay_a_batch_is_due_at_once() -> None:
    assert delay_s(BatchPolicy(), waiting_rows=1, waiting_tokens=0, oldest_s=10.0, now=10.0) <= 0


REGROUPING = BatchPolicy(max_rows=32, regroup_share=0.02)


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
def test_session_waits_for_the_callers_it_answered(
    waiting_rows: int, now: float, expected: float
) -> None:
    last = LastBatch(rows=8, run_s=1.0, ended_s=10.0, left_rows=8)

    pause_s = regroup_wait_s(REGROUPING, last, waiting_rows=waiting_rows, waiting_tokens=0, now=now)

    assert pause_s == pytest.approx(expected)


def test_full_batch_does_not_wait() -> None:
    last = LastBatch(rows=32, run_s=1.0, ended_s=10.0, left_rows=5)

    assert regroup_wait_s(REGROUPING, last, waiting_rows=32, waiting_tokens=0, now=10.0) == 0.0


def test_session_does_not_wait_after_short_runs() -> None:
    last = LastBatch(rows=8, run_s=0.02, ended_s=10.0, left_rows=0)

    assert regroup_wait_s(REGROUPING, last, waiting_rows=1, waiting_tokens=0, now=10.0) == 0.0


@pytest.mark.parametrize(
    ("max_rows", "max_queue_delay_s", "max_tokens", "name"),
    [
        pytest.param(0, 0.0, None, "max_batch_rows", id="no rows"),
        pytest.param(1, -0.1, None, "max_queue_delay_s", id="negative delay"),
        pytest.param(1, 0.0, 0, "max_batch_tokens", id="no tokens"),
    ],
)
def test_limits_that_never_cut_a_batch_are_refused(
    max_rows: int, max_queue_delay_s: float, max_tokens: int | None, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected"):
        BatchPolicy(max_rows, max_queue_delay_s, max_tokens=max_tokens)


def test_as_many_tokens_as_a_batch_may_have_are_a_full_one() -> None:
    policy = BatchPolicy(32, 0.5, regroup_share=0.02, max_tokens=64)
    last = LastBatch(rows=8, run_s=1.0, ended_s=10.0, left_rows=8)

    def pauses_s(tokens: int) -> list[float]:
        delay = delay_s(policy, waiting_rows=2, waiting_tokens=tokens, oldest_s=10.0, now=10.0)
        regroup = regroup_wait_s(policy, last, waiting_rows=2, waiting_tokens=tokens, now=10.0)
        return [delay, regroup]

    assert pauses_s(63) == [0.5, pytest.approx(0.02)]
    assert pauses_s(64) == [0.0, 0.0]


def of_lengths(*lengths: int) -> list[Waiting]:
    return [Waiting(1, length=length) for length in lengths]


@pytest.mark.parametrize(
    ("lengths", "step_rows", "expected"),
    [
        pytest.param([10, 50, 10, 9, 11], 2.0, [0, 2, 4, 3], id="neighbours on both sides"),
        pytest.param([10, 80, 1, 2], 2.0, [0], id="nobody near"),
        pytest.param([80, 10, 10, 10], 0.0, [0], id="short ones would be computed as long ones"),
        pytest.param([10, 12, 14, 5], 64.0, [0, 1, 2, 3], id="where steps cost most it is filled"),
        pytest.param([33, 36, 40], 0.0, [0, 1], id="what is filled up to the same size is free"),
    ],
)
def test_batch_mates_are_those_nearest_in_length(
    lengths: list[int], step_rows: float, expected: list[int]
) -> None:
    queue = of_lengths(*lengths)

    batch = select(queue, BatchPolicy(8, step_rows=step_rows))

    assert batch == [queue[index] for index in expected]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param([9, 9, 9, 9], [0, 1, 2], id="its own"),
        pytest.param([9, 8, 8, 8], [0, 1, 2], id="shorter"),
        pytest.param([8, 9, 9, 9], [0, 1, 2], id="longer"),
    ],
)
def test_of_equal_length_the_older_goes_first(lengths: list[int], expected: list[int]) -> None:
    queue = of_lengths(*lengths)

    assert select(queue, BatchPolicy(3, step_rows=9.0)) == [queue[index] for index in expected]


def test_request_beyond_every_limit_runs_alone() -> None:
    queue = [Waiting(5, length=90), *of_lengths(90, 90)]

    assert select(queue, BatchPolicy(4, max_tokens=64)) == queue[:1]


def size_of(batch: list[Waiting]) -> int:
    return max(rounded_up(request.length) for request in batch)


@given(sentences, budgets)
def test_batch_of_sentences_holds_the_oldest_of_one_key_within_limits(
    queue: list[Waiting], policy: BatchPolicy
) -> None:
    batch = select(queue, policy)

    assert batch[0] is queue[0]
    assert len({id(request) for request in batch}) == len(batch)
    assert {request.key for request in batch} == {queue[0].key}
    assert policy.fits(rows_of(batch), size_of(batch)) or len(batch) == 1


@given(sentences, budgets)
def test_no_waiting_request_lies_between_two_in_length(
    queue: list[Waiting], policy: BatchPolicy
) -> None:
    batch = select(queue, policy)

    lengths = sorted(request.length for request in batch)
    left = [each for each in queue if each not in batch and each.key == queue[0].key]
    assert not [each for each in left if lengths[0] < each.length < lengths[-1]]


@given(sentences, budgets)
def test_no_other_neighbourhood_makes_a_real_entry_cheaper(
    queue: list[Waiting], policy: BatchPolicy
) -> None:
    """Every run of the queue by length that holds the oldest is tried."""

    def worth(batch: list[Waiting]) -> float:
        entries = sum(request.rows * request.length for request in batch)
        return entries / (size_of(batch) * (rows_of(batch) + policy.step_rows))

    oldest, *others = queue
    mates = [each for each in others if each.key == oldest.key]
    longer = sorted((each for each in mates if each.length >= oldest.length), key=length_of)
    shorter = sorted(
        (each for each in mates if each.length < oldest.length), key=length_of, reverse=True
    )
    tried = [
        [oldest, *longer[:above], *shorter[:below]]
        for above in range(len(longer) + 1)
        for below in range(len(shorter) + 1)
    ]
    allowed = [each for each in tried if policy.fits(rows_of(each), size_of(each))]

    batch = select(queue, policy)

    assert worth(batch) == pytest.approx(max(map(worth, allowed or [[oldest]])))


def length_of(request: Waiting) -> int:
    return request.length


@given(sentences, st.lists(sentences, max_size=12), budgets)
def test_no_request_starves(
    queue: list[Waiting], arrivals: list[list[Waiting]], policy: BatchPolicy
) -> None:
    """A request waits for at most as many batches as there were requests before it."""
    left = list(queue)
    waited = {id(request): 0 for request in left}
    before = {id(request): place for place, request in enumerate(left)}

    while left:
        batch = select(left, policy)
        for request in batch:
            assert waited[id(request)] <= before[id(request)]
        left = [request for request in left if request not in batch]
        for request in left:
            waited[id(request)] += 1
        for request in arrivals.pop() if arrivals else ():
            waited[id(request)], before[id(request)] = 0, len(left)
            left.append(request)
