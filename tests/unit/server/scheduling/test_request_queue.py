"""The queue alone: no thread, no clock. A run of 8 rows takes 0.1 s, one of a single row 0.03 s."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from weir.server.errors import DeadlineExceeded, Overloaded
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.request import InferRequest
from weir.server.scheduling.request_queue import Batch, RequestQueue
from weir.server.scheduling.service_time import ServiceTime

POLICY = BatchPolicy(8)
THREAD = 1


@dataclass(eq=False)
class Queued(InferRequest):
    """A request that only waits."""

    queued_s: float = 0.0
    limit_s: float = 1.0
    rows: int = 1
    length: int = 0
    key: Any = ()
    work: int = field(init=False)
    deadline_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.work = self.rows * (self.length or 1)
        self.deadline_s = self.queued_s + self.limit_s


Queue = RequestQueue[Any]


def queue_of(*, max_rows: int = 1000, sessions: int = 1) -> Queue:
    service = ServiceTime(8.0, fixed_s=0.02, unit_s=0.01, largest=8, runs=9)
    return RequestQueue("model", max_rows, service, sessions)


def put(queue: Queue, now: float = 0.0, **what: Any) -> Queued:
    request = Queued(queued_s=now, **what)
    queue.put(request, now)
    return request


def fill(queue: Queue, now: float = 0.0, **what: Any) -> int:
    """Put requests until one is refused; the number of those that wait."""
    for waiting in range(10_000):
        try:
            put(queue, now, **what)
        except Overloaded:
            return waiting
    raise AssertionError("expected a refusal, got none")


def cut(queue: Queue, now: float = 0.0) -> Batch[Any]:
    return queue.cut(POLICY, now, THREAD)


def test_what_cannot_be_answered_in_time_is_refused_at_arrival() -> None:
    queue = queue_of()
    put(queue)
    cut(queue)

    # Of the second, 0.8 s may be used: seven full batches after a short run.
    assert fill(queue) == 7 * 8


def test_refusal_says_what_waits_what_is_expected_and_when_to_come_back() -> None:
    queue = queue_of()
    fill(queue)

    text = r"64 rows wait, an answer is expected in 0.9 s, the request has 0.85 s"
    with pytest.raises(Overloaded, match=text) as error:
        put(queue, limit_s=0.85)

    # 0.68 s may be used.
    assert error.value.retry_after_s == pytest.approx(0.22)


def test_after_the_pause_of_a_refusal_there_is_room() -> None:
    queue = queue_of()
    fill(queue)
    with pytest.raises(Overloaded) as error:
        put(queue)
    now = 0.0
    assert error.value.retry_after_s is not None
    while now < error.value.retry_after_s:
        cut(queue, now)
        now += 0.1
        queue.ended(THREAD, now)

    put(queue, now)


def test_a_free_session_takes_any_request() -> None:
    """The estimate may be wrong, and nothing else would correct it."""
    queue = queue_of()

    request = put(queue, limit_s=0.001)

    assert cut(queue).requests == [request]


def test_one_free_session_of_several_takes_any_request() -> None:
    queue = queue_of(sessions=2)
    put(queue)
    cut(queue)

    put(queue, limit_s=0.001)

    with pytest.raises(Overloaded):
        put(queue, limit_s=0.001)


def test_without_a_measured_run_nothing_is_refused_for_its_time() -> None:
    queue: Queue = RequestQueue("model", 100, ServiceTime(8.0))
    put(queue)
    cut(queue)

    for _ in range(100):
        put(queue, limit_s=0.001)


def test_an_estimate_that_was_too_high_corrects_itself() -> None:
    queue = queue_of()
    queue.service = ServiceTime(8.0, fixed_s=20.0, unit_s=10.0, largest=8, runs=9)
    now = 0.0

    runs = 0
    while queue.service.of(8) > 0.5:
        put(queue, now)
        assert cut(queue, now).requests
        now += 0.03
        queue.ended(THREAD, now)
        runs += 1

    assert runs < 40


def test_several_sessions_share_what_waits() -> None:
    assert fill(queue_of(sessions=2)) > 1.7 * fill(queue_of(sessions=1))


def test_a_run_that_has_gone_on_leaves_less_to_wait_for() -> None:
    early, late = queue_of(), queue_of()
    for queue in (early, late):
        for _ in range(8):
            put(queue)
        cut(queue)

    with pytest.raises(Overloaded):
        put(early, 0.0, limit_s=0.15)
    put(late, 0.09, limit_s=0.15)


def test_long_rows_count_as_long() -> None:
    queue = queue_of()
    queue.service = ServiceTime(8.0, fixed_s=0.02, unit_s=0.001, largest=80, runs=9)

    short = fill(queue, length=10)

    queue.waiting = queue_of().waiting
    assert fill(queue, length=40) < short / 2


def test_what_cannot_end_in_time_is_left_out_and_its_place_taken() -> None:
    queue = queue_of()
    hopeless = [put(queue, limit_s=0.7) for _ in range(3)]
    others = [put(queue, limit_s=2.0) for _ in range(8)]

    batch = cut(queue, 0.65)

    assert batch.requests == others
    assert [request for request, _ in batch.refused] == hopeless
    assert all(type(error) is Overloaded for _, error in batch.refused)


def test_what_is_late_already_is_told_so() -> None:
    queue = queue_of()
    late = put(queue, limit_s=0.7)
    put(queue, limit_s=2.0)

    ((refused, error),) = cut(queue, 0.7).refused

    assert refused is late
    assert type(error) is DeadlineExceeded


def test_after_a_pause_of_the_machine_no_run_is_in_vain() -> None:
    """Each batch in turn would be just too late: first come first served computes them all."""
    queue = queue_of()
    for number in range(50):
        put(queue, 0.01 * number)

    batch = cut(queue, 1.2)

    assert all(request.deadline_s >= 1.3 for request in batch.requests)
    assert len(batch.requests) == 8
    assert len(batch.refused) == 30


def test_if_nothing_can_end_in_time_the_last_runs_alone() -> None:
    queue = queue_of()
    requests = [put(queue, 0.01 * number) for number in range(4)]

    batch = cut(queue, 1.02)

    assert batch.requests == [requests[-1]]
    assert len(batch.refused) == 3


def test_nothing_runs_once_all_are_late() -> None:
    queue = queue_of()
    for _ in range(4):
        put(queue)

    batch = cut(queue, 1.0)

    assert not batch.requests
    assert len(batch.refused) == 4
    assert not queue.batches


def test_urgent_requests_go_first_and_every_fourth_batch_takes_the_oldest() -> None:
    queue = queue_of()
    patient = [put(queue, limit_s=600.0) for _ in range(40)]

    batches = []
    for number in range(8):
        for _ in range(8):
            put(queue, 0.1 * number)
        batches.append(cut(queue, 0.1 * number).requests)
        queue.ended(THREAD, 0.1 * number + 0.1)

    served = [sum(request in patient for request in batch) for batch in batches]
    assert served == [0, 0, 0, 8, 0, 0, 0, 8]


def test_rows_bound_the_queue_whatever_their_time() -> None:
    queue = queue_of(max_rows=16)
    for _ in range(16):
        put(queue, limit_s=600.0)

    with pytest.raises(Overloaded, match="16 rows wait, the limit is 16") as error:
        put(queue, limit_s=600.0)

    assert error.value.retry_after_s == pytest.approx(0.1)


def test_a_row_that_is_still_to_be_preprocessed_is_refused_alike() -> None:
    queue = queue_of()
    queue.check_time(0.001, 0.0)
    fill(queue)

    with pytest.raises(Overloaded):
        queue.check_time(1.0, 0.0)
    queue.check_time(60.0, 0.0)
    assert len(queue.waiting) == 64


def test_load_says_in_what_time_an_answer_is_expected() -> None:
    queue = queue_of()
    idle_s = queue.load(0.0).expected_s
    put(queue)
    cut(queue)
    for _ in range(16):
        put(queue, limit_s=60.0)

    # After the single row that runs, two full batches, and a batch of its own, filled up by others.
    assert idle_s == pytest.approx(0.03)
    assert queue.load(0.0).expected_s == pytest.approx(0.03 + 2 * 0.1 + 0.1)
    assert RequestQueue[Any]("model", 10).load(0.0).expected_s is None
