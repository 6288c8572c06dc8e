import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tests.unit.server.scheduling.scheduler_world import (
    HANG_S,
    Array,
    Call,
    World,
    ending,
)
from weir.server.errors import Cancelled, DeadlineExceeded, InvalidRequest
from weir.server.scheduling.batching import Basis, BatchDecision, BatchPolicy
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.scheduler import Scheduler


@pytest.fixture
def world() -> Iterator[World]:
    yield from ending(World())


def test_run_that_fails_alone_fails_its_request(world: World) -> None:
    call = world.submit_and_run()

    world.end_run(InvalidRequest("not with these values"))
    world.settle()

    assert call.failed_with(InvalidRequest)
    assert world.batches == [[1]]


def test_one_bad_request_does_not_take_its_batch_mates_down(world: World) -> None:
    world.submit_and_run()
    mates = [world.submit() for _ in range(3)]
    world.end_run()

    for error in (ValueError("whole batch"), None, ValueError("bad one"), None):
        world.wait_for(lambda: len(world.running) == 1)
        world.end_run(error)
    world.settle()

    assert world.batches == [[1], [2, 3, 4], [2], [3], [4]]
    assert [call.has_right_answer for call in mates] == [True, False, True]
    assert mates[1].failed_with(ValueError)


def test_batch_mates_that_left_are_not_run_again(world: World) -> None:
    world.submit_and_run()
    stays, leaves, expires = (world.submit(deadline_s=at) for at in (9.0, 9.0, 5.0))
    world.end_run()
    world.wait_for(lambda: len(world.running) == 1)
    world.scheduler.cancel(leaves)
    world.clock.advance(5.0)
    world.scheduler.expire(world.clock.now)

    world.end_run(ValueError("whole batch"))
    world.wait_for(lambda: len(world.running) == 1)
    world.end_run()
    world.settle()

    assert world.batches == [[1], [2, 3, 4], [stays.number]]
    assert stays.has_right_answer
    assert leaves.failed_with(Cancelled)
    assert expires.failed_with(DeadlineExceeded)


def test_request_that_expires_during_the_single_runs_is_not_run(world: World) -> None:
    """The deadlines are not watched here: the scheduler itself must not start late."""
    world.submit_and_run()
    first, late = world.submit(deadline_s=9.0), world.submit(deadline_s=5.0)
    world.end_run()
    world.wait_for(lambda: len(world.running) == 1)
    world.end_run(ValueError("whole batch"))
    world.wait_for(lambda: len(world.running) == 1)
    world.clock.advance(5.0)

    world.end_run()
    world.settle()

    assert world.batches == [[1], [2, 3], [2]]
    assert first.has_right_answer
    assert late.failed_with(DeadlineExceeded)


def test_answer_that_cannot_be_sent_fails_its_caller_alone(world: World) -> None:
    world.submit_and_run()
    good, bad = world.submit(), world.submit(answer_error=ValueError("too large"))

    world.end_every_run()

    assert good.has_right_answer
    assert bad.failed_with(ValueError)
    assert world.batches == [[1], [2, 3]]


def test_outputs_of_another_number_of_rows_answer_no_request() -> None:
    """A graph may say `batch` of an axis and not keep to it."""
    shared = {"y": np.zeros((1, 1))}
    world = World()
    scheduler = Scheduler(
        "liar",
        lambda inputs: shared,
        policy=BatchPolicy(),
        max_queue_rows=8,
        instances=1,
        has_rows=True,
        deadlines=Deadlines(world.clock),
        observer=world.batch_ran,
        clock=world.clock,
    )
    calls = [world.call(rows=2) for _ in range(2)]
    for call in calls:
        scheduler.submit(call)

    scheduler.start()
    world.wait_for(lambda: all(call.outcomes for call in calls))

    assert all(call.failed_with(ValueError) for call in calls)
    assert not scheduler.decision.is_batched
    scheduler.close()
    assert scheduler.join(HANG_S)


class Boxes:
    """A scheduler of a plain model that answers each row with as many boxes as its number says.

    Args:
        world: what is around it.
        is_batched: whether it is at first.
        policy: when batches are cut.
    """

    def __init__(
        self, world: "World", *, is_batched: bool = True, policy: BatchPolicy | None = None
    ) -> None:
        self.world = world
        self.ran: list[list[int]] = []
        self.scheduler = Scheduler(
            "boxes",
            self._run,
            policy=policy or BatchPolicy(),
            max_queue_rows=100,
            instances=1,
            has_rows=True,
            has_fixed_rows=False,
            decision=BatchDecision(is_batched=is_batched, basis=Basis.PROOF, reason=""),
            deadlines=Deadlines(world.clock),
            observer=world.batch_ran,
            clock=world.clock,
        )

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        counts = inputs["x"][:, 0].astype(int)
        self.ran.append(counts.tolist())
        return {"y": np.repeat(inputs["x"], counts, axis=0)}

    def submit(self, boxes: int) -> "Call":
        call = self.world.call()
        call.inputs = {"x": np.full((1, 1), boxes)}
        self.scheduler.submit(call)
        return call

    def answers(self, calls: Sequence["Call"]) -> list[list[Any]]:
        """The first number of each box, by call."""
        self.world.wait_for(lambda: all(call.outcomes for call in calls))
        self.scheduler.close()
        assert self.scheduler.join(HANG_S)
        outcomes = [call.outcomes[0] for call in calls]
        assert not any(isinstance(outcome, Exception) for outcome in outcomes)
        return [outcome["y"][:, 0].tolist() for outcome in outcomes]  # type: ignore[index]


def test_batch_with_another_number_of_rows_is_run_singly_and_no_other_is_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    boxes = Boxes(World())
    calls = [boxes.submit(count) for count in (2, 0, 3)]

    boxes.scheduler.start()
    boxes.world.wait_for(lambda: all(call.outcomes for call in calls))
    # From now on a total that fits is no proof either.
    calls += [boxes.submit(count) for count in (2, 0)]

    decision = boxes.scheduler.decision
    assert (decision.basis, decision.reason) == (
        Basis.ROW_COUNT,
        "output 'y': expected 3 rows, got 5",
    )
    assert boxes.answers(calls) == [[2, 2], [], [3, 3, 3], [2, 2], []]
    assert boxes.ran == [[2, 0, 3], [2], [0], [3], [2], [0]]
    assert not boxes.scheduler.decision.is_batched
    assert caplog.messages == [
        "model is not batched from now on model=boxes reason=output 'y': expected 3 rows, got 5"
    ]


def test_request_that_gets_another_number_of_rows_alone_ends_batching_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    boxes = Boxes(World())
    boxes.scheduler.start()
    first = boxes.submit(2)
    boxes.world.wait_for(lambda: bool(first.outcomes))

    calls = [first, *(boxes.submit(count) for count in (0, 2))]

    assert boxes.answers(calls) == [[2, 2], [], [2, 2]]
    assert boxes.ran == [[2], [0], [2]]
    assert len(caplog.messages) == 1


def test_request_without_a_key_runs_alone_and_its_rows_prove_nothing() -> None:
    """Its rows need not be those of its inputs: the graph may take inputs of unequal sizes."""
    boxes = Boxes(World())
    calls = [boxes.submit(count) for count in (1, 3, 1)]
    calls[1].key = None

    boxes.scheduler.start()

    assert boxes.answers(calls) == [[1], [3, 3, 3], [1]]
    assert boxes.ran == [[1, 1], [3]]
    assert boxes.scheduler.decision.is_batched


def test_model_that_is_not_batched_runs_requests_singly_and_without_delay() -> None:
    boxes = Boxes(World(), is_batched=False, policy=BatchPolicy(8, 1000.0))
    calls = [boxes.submit(count) for count in (0, 1, 2)]

    boxes.scheduler.start()

    assert boxes.answers(calls) == [[], [1], [2, 2]]
    assert boxes.ran == [[0], [1], [2]]


def test_requests_that_wait_for_a_batch_to_fill_are_due_when_batching_ends() -> None:
    boxes = Boxes(World(), policy=BatchPolicy(2, 1000.0))
    calls = [boxes.submit(count) for count in (2, 1, 1)]

    boxes.scheduler.start()

    assert boxes.answers(calls) == [[2, 2], [1], [1]]


def test_batch_that_runs_while_batching_ends_is_run_singly() -> None:
    world = World()
    started, go_on = threading.Event(), threading.Event()
    runs: list[int] = []

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        counts = inputs["x"][:, 0].astype(int)
        runs.append(len(counts))
        if counts.tolist() == [2, 0]:
            # Two rows of two: nothing about this batch is wrong but its boxes.
            started.set()
            assert go_on.wait(HANG_S)
        return {"y": np.repeat(inputs["x"], counts, axis=0)}

    scheduler = Scheduler(
        "boxes",
        run,
        policy=BatchPolicy(2),
        max_queue_rows=100,
        instances=2,
        has_rows=True,
        has_fixed_rows=False,
        deadlines=Deadlines(world.clock),
        observer=world.batch_ran,
        clock=world.clock,
    )
    calls = [world.call() for _ in range(4)]
    for call, count in zip(calls, (2, 0, 3, 1), strict=True):
        call.inputs = {"x": np.full((1, 1), count)}
        scheduler.submit(call)

    scheduler.start()
    assert started.wait(HANG_S)
    world.wait_for(lambda: bool(calls[2].outcomes and calls[3].outcomes))
    go_on.set()
    world.wait_for(lambda: all(call.outcomes for call in calls))

    answers = [call.outcomes[0] for call in calls]
    assert [len(answer["y"]) for answer in answers] == [2, 0, 3, 1]  # type: ignore[index]
    assert sorted(runs) == [1, 1, 1, 1, 2, 2]
    scheduler.close()
    assert scheduler.join(HANG_S)
