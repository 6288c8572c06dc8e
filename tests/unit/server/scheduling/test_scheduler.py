import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.server.conftest import Clock
from weir.server.errors import Cancelled, DeadlineExceeded, Draining, InvalidRequest, Overloaded
from weir.server.runtime.collate import Padding, Tokens
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import InferRequest, Load
from weir.server.scheduling.scheduler import Scheduler
from weir.server.telemetry.model_stats import BatchTimes, CountedRequest
from weir.server.telemetry.request_record import RequestRecord

Array = NDArray[Any]

# Only ever reached by a test that fails.
HANG_S = 20.0
LATER = 1e9


@dataclass(eq=False)
class Call(InferRequest):
    """A fake request: its rows hold its number, so that an answer shows whose it is."""

    world: "World"
    number: int
    rows: int = 1
    key: Hashable = ()
    length: int = 0
    arrived_s: float = 0.0
    queued_s: float = 0.0
    deadline_s: float = LATER
    answer_error: Exception | None = None
    fail_error: Exception | None = None
    is_answered: bool = False
    record: RequestRecord | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    outcomes: list[Mapping[str, Array] | Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = max(1, self.length)
        self.inputs: Mapping[str, Array] = {
            "x": np.full((self.rows, size), self.number),
            "lengths": np.full(self.rows, size),
        }

    def answer(self, outputs: Mapping[str, Array]) -> None:
        if self.answer_error is not None:
            raise self.answer_error
        with self.world.changed:
            self.is_answered = True
            self.outcomes.append(outputs)
            self.world.changed.notify_all()

    def fail(self, error: Exception) -> None:
        with self.world.changed:
            self.outcomes.append(error)
            self.world.changed.notify_all()
        if self.fail_error is not None:
            raise self.fail_error

    @property
    def has_right_answer(self) -> bool:
        (outcome,) = self.outcomes
        return not isinstance(outcome, Exception) and outcome["y"].tolist() == (
            [[-self.number] * max(1, self.length)] * self.rows
        )

    def failed_with(self, error: type[Exception]) -> bool:
        (outcome,) = self.outcomes
        return isinstance(outcome, error)


@dataclass(eq=False)
class Run:
    """A batch that runs until the test lets it end."""

    numbers: list[int]
    error: Exception | None = None
    may_end: bool = False


# What fills a row up is no caller's number.
PADDING = Padding(
    maximum=50, inputs={"x": (1,)}, values={"x": -7}, outputs={"y": (1,)}, lengths="lengths"
)


class World:
    """A scheduler and its world: every step waits for the test, every wait for an event."""

    def __init__(self, *, instances: int = 1, max_queue_rows: int = 100, **policy: float) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.clock = Clock(0.0)
        self.running: list[Run] = []
        self.batches: list[list[int]] = []
        self.observed: list[tuple[list[int], BatchTimes]] = []
        self.tokens: list[Tokens] = []
        self.calls: list[Call] = []
        self.instances = instances
        self.thread_names: set[str] = set()
        self.scheduler = Scheduler(
            "fake",
            self._run,
            policy=BatchPolicy(
                int(policy.get("max_rows", 8)),
                policy.get("max_queue_delay_s", 0.0),
                policy.get("regroup_share", 0.0),
                max_tokens=int(policy["max_tokens"]) if "max_tokens" in policy else None,
                step_rows=2.0,
            ),
            max_queue_rows=max_queue_rows,
            instances=instances,
            has_rows=True,
            paddings=[PADDING],
            deadlines=Deadlines(self.clock),
            observer=self._observe,
            clock=self.clock,
        )
        self.scheduler.start()

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        run = Run(list(dict.fromkeys(inputs["x"][:, 0].tolist())))
        with self.changed:
            self.thread_names.add(threading.current_thread().name)
            self.batches.append(run.numbers)
            self.running.append(run)
            self.changed.notify_all()
            self.wait_for(lambda: run.may_end)
            self.running.remove(run)
            self.changed.notify_all()
        if run.error is not None:
            raise run.error
        return {"y": -inputs["x"]}

    def _observe(self, *batch: Any) -> None:
        # Looked up at each batch: tests replace it.
        self.batch_ran(*batch)

    def batch_ran(
        self, requests: Sequence[CountedRequest], times: BatchTimes, tokens: Tokens
    ) -> None:
        with self.changed:
            numbers = [call.number for call in requests if isinstance(call, Call)]
            self.observed.append((numbers, times))
            self.tokens.append(tokens)
            self.changed.notify_all()

    def ran(self) -> set[int]:
        """The numbers of all calls that were in a run."""
        return {number for batch in self.batches for number in batch}

    def wait_for(self, happened: Callable[[], bool]) -> None:
        with self.changed:
            if not self.changed.wait_for(happened, HANG_S):
                raise AssertionError("what the test waits for does not happen")

    def call(self, **what: Any) -> Call:
        """A call that is not submitted yet."""
        now = self.clock.now
        return Call(self, len(self.calls) + 1, arrived_s=now, queued_s=now, **what)

    def submit(self, call: Call | None = None, **what: Any) -> Call:
        call = call or self.call(**what)
        self.scheduler.submit(call)
        self.calls.append(call)
        return call

    def submit_and_run(self, *, runs: int = 1, **what: Any) -> Call:
        """A call whose batch is running when this returns."""
        call = self.submit(**what)
        self.wait_for(lambda: len(self.running) == runs)
        return call

    def end_run(self, error: Exception | None = None, position: int = 0) -> Run:
        """Let a batch end, and wait until it did."""
        with self.changed:
            run = self.running[position]
            run.error = error
            run.may_end = True
            self.changed.notify_all()
            self.wait_for(lambda: run not in self.running)
        return run

    def end_every_run(self) -> None:
        """Let everything end well, what still waits too, and the scheduler with it."""
        self.scheduler.close()
        while any(not call.outcomes for call in self.calls):
            self.wait_for(lambda: bool(self.running) or all(call.outcomes for call in self.calls))
            if self.running:
                self.end_run()
        # Runs whose callers all left.
        while self.running:
            self.end_run()

    def settle(self) -> None:
        """Wait until every thread of the scheduler waits: for a request, or in a run."""

        def is_settled() -> bool:
            with self.changed:
                return is_settled_now()

        def is_settled_now() -> bool:
            load = self.scheduler.load()
            in_runs = {number for run in self.running for number in run.numbers}
            held = [call for call in self.calls if not call.outcomes and call.number in in_runs]
            open_calls = sum(not call.outcomes for call in self.calls)
            return (
                load.running_requests == len(held)
                and open_calls == load.waiting_requests + load.running_requests
                and (load.waiting_requests == 0 or len(self.running) == self.instances)
            )

        # The last thing a thread does with a batch is told to nobody: so look again and again.
        end_s = time.monotonic() + HANG_S
        while not is_settled():
            assert time.monotonic() < end_s, "what the test waits for does not happen"
            time.sleep(0.001)


@pytest.fixture
def world() -> Iterator[World]:
    yield from ending(World())


def ending(world: World) -> Iterator[World]:
    yield world
    world.end_every_run()
    assert world.scheduler.join(HANG_S)


def test_a_request_is_answered_with_its_own_rows(world: World) -> None:
    call = world.submit_and_run(rows=3)

    world.end_run()
    world.settle()

    assert call.has_right_answer


def test_requests_that_arrive_during_a_run_share_the_next_batch(world: World) -> None:
    first = world.submit_and_run()
    others = [world.submit(rows=rows) for rows in (1, 2, 3)]

    world.end_run()
    world.wait_for(lambda: len(world.running) == 1)
    world.end_run()
    world.settle()

    assert world.batches == [[1], [2, 3, 4]]
    assert all(call.has_right_answer for call in [first, *others])


def test_keys_do_not_mix(world: World) -> None:
    world.submit_and_run()
    for key in "abab":
        world.submit(key=key)

    world.end_every_run()

    assert world.batches == [[1], [2, 4], [3, 5]]
    assert all(call.has_right_answer for call in world.calls)


def test_batch_mates_are_near_in_length_and_get_their_own_part(world: World) -> None:
    world.submit_and_run(length=3)
    for length in (20, 3, 19, 4, 20):
        world.submit(length=length)

    world.end_every_run()
    world.wait_for(lambda: len(world.tokens) == 3)

    assert [sorted(batch) for batch in world.batches] == [[1], [2, 4, 6], [3, 5]]
    assert all(call.has_right_answer for call in world.calls)
    assert world.tokens == [Tokens(3, 3), Tokens(59, 60), Tokens(7, 8)]


def test_oldest_is_in_the_next_batch_whatever_arrives() -> None:
    """Others of one length keep coming, and the one that is unlike them is not put off."""
    world = World(max_rows=4)
    world.submit_and_run(length=3)
    unlike = world.submit(length=50)
    for _ in range(4):
        world.submit(length=3)

    world.end_run()
    world.wait_for(lambda: len(world.running) == 1)

    assert world.batches[1] == [unlike.number]
    world.end_every_run()
    assert all(call.has_right_answer for call in world.calls)


def test_as_many_tokens_as_a_batch_may_have_are_not_waited_for() -> None:
    world = World(max_queue_delay_s=1e6, max_tokens=40)
    world.submit(length=20)

    world.submit_and_run(length=20)

    assert world.batches == [[1, 2]]
    world.end_every_run()


def test_full_queue_refuses_at_once_and_with_the_limit() -> None:
    world = World(max_queue_rows=4)
    world.submit_and_run()
    world.submit(rows=3)

    with pytest.raises(Overloaded, match="3 rows wait, the limit is 4"):
        world.submit(rows=2)
    fits = world.submit(rows=1)

    assert world.scheduler.load() == Load(2, 4, 1)
    world.end_every_run()
    assert fits.has_right_answer


def test_request_larger_than_the_queue_waits_alone() -> None:
    """Told to come back later it would come back for ever."""
    world = World(max_queue_rows=2)
    world.submit_and_run()

    large = world.submit(rows=8)

    with pytest.raises(Overloaded, match="8 rows wait, the limit is 2"):
        world.submit()
    world.end_every_run()
    assert large.has_right_answer


def test_rows_that_run_do_not_count_against_the_queue() -> None:
    world = World(max_queue_rows=4)
    world.submit_and_run(rows=4)

    world.submit(rows=4)

    assert world.scheduler.load() == Load(1, 4, 1)
    world.end_every_run()


def test_cancelling_a_waiting_request_frees_its_place() -> None:
    world = World(max_queue_rows=2)
    world.submit_and_run()
    leaver = world.submit(rows=2)

    world.scheduler.cancel(leaver)

    assert leaver.failed_with(Cancelled)
    assert world.scheduler.load() == Load(0, 0, 1)
    newcomer = world.submit(rows=2)
    world.end_every_run()
    assert newcomer.has_right_answer
    assert leaver.number not in world.ran()


def test_cancelled_caller_harms_nobody(world: World) -> None:
    world.submit_and_run()
    mates = [world.submit(rows=rows) for rows in (2, 1, 3)]
    world.end_run()
    world.wait_for(lambda: len(world.running) == 1)

    world.scheduler.cancel(mates[1])
    world.end_run()
    world.settle()

    assert mates[1].failed_with(Cancelled)
    assert mates[0].has_right_answer and mates[2].has_right_answer
    assert world.batches == [[1], [2, 3, 4]]


def test_cancelling_twice_or_too_late_changes_nothing(world: World) -> None:
    cancelled = world.submit_and_run()
    world.scheduler.cancel(cancelled)
    world.scheduler.cancel(cancelled)
    world.end_run()
    answered = world.submit_and_run()
    world.end_run()
    world.settle()

    world.scheduler.cancel(answered)

    assert cancelled.failed_with(Cancelled)
    assert answered.has_right_answer


def test_cancelling_at_the_deadline_tells_of_the_deadline(world: World) -> None:
    """The transport reports both in the same way: the call is closed."""
    call = world.submit_and_run(deadline_s=5.0)
    world.clock.advance(5.0)

    world.scheduler.cancel(call)

    assert call.failed_with(DeadlineExceeded)


def test_expired_request_never_runs(world: World) -> None:
    world.submit_and_run()
    late = world.submit(deadline_s=5.0)
    in_time = world.submit(deadline_s=6.0)
    world.clock.advance(5.0)

    world.end_run()
    world.wait_for(lambda: len(world.running) == 1)

    assert late.failed_with(DeadlineExceeded)
    assert world.batches == [[1], [in_time.number]]


def test_batch_of_expired_requests_alone_is_no_run(world: World) -> None:
    world.submit_and_run()
    late = [world.submit(deadline_s=5.0) for _ in range(3)]
    world.clock.advance(6.0)

    world.end_run()
    world.settle()

    assert all(call.failed_with(DeadlineExceeded) for call in late)
    assert world.batches == [[1]]
    assert world.scheduler.load() == Load(0, 0, 0)


def test_request_that_expires_while_a_session_is_busy_is_told_at_once(world: World) -> None:
    running = world.submit_and_run(deadline_s=5.0)
    waiting = world.submit(deadline_s=6.0)
    patient = world.submit(deadline_s=90.0)

    assert world.scheduler.expire(4.0) == 5.0
    assert world.scheduler.expire(5.0) == 6.0
    assert world.scheduler.expire(6.0) == 90.0

    assert running.failed_with(DeadlineExceeded)
    assert waiting.failed_with(DeadlineExceeded)
    assert world.scheduler.load() == Load(1, 1, 0)
    world.end_every_run()
    assert patient.has_right_answer
    assert waiting.number not in world.ran()


def test_caller_who_cannot_be_told_that_it_is_late_keeps_nobody_else_from_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither those whose time is over too, nor those who still wait for the thread."""
    world.submit_and_run()
    lost = [world.submit(deadline_s=at, fail_error=OSError("planned")) for at in (5.0, 6.0)]
    late, cut = world.submit(deadline_s=5.0), world.submit(deadline_s=6.0)
    patient = world.submit()

    with caplog.at_level(logging.CRITICAL):
        world.scheduler.expire(5.0)
        world.clock.advance(6.0)
        world.end_every_run()

    assert all(call.failed_with(DeadlineExceeded) for call in (*lost, late, cut))
    assert patient.has_right_answer


def test_without_requests_there_is_no_deadline(world: World) -> None:
    assert world.scheduler.expire(LATER) == float("inf")


def test_run_that_fails_alone_tells_its_caller_why(world: World) -> None:
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
    stays, leaves, expires = world.submit(), world.submit(), world.submit(deadline_s=5.0)
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
    """Nobody watches the deadlines here: the scheduler itself must not start late."""
    world.submit_and_run()
    first, late = world.submit(), world.submit(deadline_s=5.0)
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


def test_model_that_gives_another_number_of_rows_answers_nobody_wrongly() -> None:
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
    assert not scheduler.is_batched
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
            is_batched=is_batched,
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

    assert boxes.answers(calls) == [[2, 2], [], [3, 3, 3], [2, 2], []]
    assert boxes.ran == [[2, 0, 3], [2], [0], [3], [2], [0]]
    assert not boxes.scheduler.is_batched
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


def test_close_refuses_new_requests_and_finishes_the_old(world: World) -> None:
    running = world.submit_and_run()
    waiting = [world.submit() for _ in range(20)]

    world.scheduler.close()

    with pytest.raises(Draining, match="'fake' is being unloaded"):
        world.submit()
    world.end_every_run()
    assert world.scheduler.join(HANG_S)
    assert all(call.has_right_answer for call in [running, *waiting])


def test_close_does_not_wait_for_a_batch_to_fill() -> None:
    world = World(max_queue_delay_s=1000.0)
    call = world.submit()

    world.end_every_run()

    assert world.scheduler.join(HANG_S)
    assert call.has_right_answer


def test_join_gives_up_in_time() -> None:
    world = World()
    world.submit_and_run()
    world.scheduler.close()

    assert not world.scheduler.join(0.0)

    world.end_every_run()
    assert world.scheduler.join(HANG_S)


def test_idle_scheduler_closes(world: World) -> None:
    world.scheduler.close()

    assert world.scheduler.join(HANG_S)


def test_bug_in_an_observer_costs_no_thread(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(world, "batch_ran", lambda *_: 1 / 0)
        first = world.submit_and_run()
        world.end_run()
        second = world.submit_and_run()

    world.end_run()

    world.wait_for(lambda: bool(second.outcomes))
    assert first.has_right_answer
    assert second.has_right_answer
    assert "batch lost" in caplog.text


def test_batch_waits_its_delay_to_fill() -> None:
    world = World(max_rows=4, max_queue_delay_s=10.0)
    world.submit(rows=1)
    world.clock.advance(9.0)
    world.submit(rows=1)

    assert world.batches == []

    world.clock.advance(1.0)
    # Its arrival makes the scheduler look at the clock.
    world.submit_and_run(rows=1)

    assert world.batches == [[1, 2, 3]]
    world.end_every_run()


def test_full_batch_does_not_wait() -> None:
    world = World(max_rows=4, max_queue_delay_s=1e6)
    world.submit(rows=3)

    world.submit_and_run(rows=1)

    assert world.batches == [[1, 2]]
    world.end_every_run()


def test_delay_is_real_time_too() -> None:
    """With a clock that runs the batch is cut without another event."""
    world = World()
    done = threading.Event()

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        done.set()
        return {"y": inputs["x"]}

    scheduler = Scheduler(
        "timed",
        run,
        policy=BatchPolicy(8, 0.01),
        max_queue_rows=8,
        instances=1,
        has_rows=True,
        deadlines=Deadlines(world.clock),
        observer=world.batch_ran,
    )
    scheduler.start()

    scheduler.submit(world.call(deadline_s=float("inf")))

    assert done.wait(HANG_S)
    scheduler.close()
    assert scheduler.join(HANG_S)


def test_instances_run_side_by_side() -> None:
    world = World(instances=3, max_rows=1)

    for runs in (1, 2, 3):
        world.submit_and_run(runs=runs)
    waits = world.submit()

    assert sorted(world.batches) == [[1], [2], [3]]
    assert world.scheduler.load() == Load(1, 1, 3)
    assert world.thread_names == {"weir-run-fake-0", "weir-run-fake-1", "weir-run-fake-2"}
    world.end_run(position=1)
    world.wait_for(lambda: len(world.running) == 3)
    assert world.batches[-1] == [waits.number]
    world.end_every_run()
    assert world.scheduler.join(HANG_S)
    assert all(call.has_right_answer for call in world.calls)


def test_observer_hears_of_each_batch_once_with_its_times(world: World) -> None:
    world.submit_and_run()
    world.clock.advance(2.0)

    world.end_run()
    world.wait_for(lambda: len(world.observed) == 1)

    ((numbers, times),) = world.observed
    assert numbers == [1]
    assert (times.cut_s, times.run_s, times.ran_s, times.answered_s) == (0.0, 0.0, 2.0, 2.0)


def test_model_without_rows_gets_its_inputs_and_outputs_whole() -> None:
    world = World()
    scheduler = Scheduler(
        "whole",
        lambda inputs: {"y": inputs["x"].sum()},
        policy=BatchPolicy(1),
        max_queue_rows=8,
        instances=1,
        has_rows=False,
        deadlines=Deadlines(world.clock),
        observer=world.batch_ran,
        clock=world.clock,
    )
    scheduler.start()
    call = world.call(rows=3)

    scheduler.submit(call)
    world.wait_for(lambda: bool(call.outcomes))

    (outcome,) = call.outcomes
    assert not isinstance(outcome, Exception)
    assert outcome["y"] == 3 * call.number
    scheduler.close()
    assert scheduler.join(HANG_S)


steps = st.one_of(
    st.tuples(
        st.just("submit"),
        st.integers(1, 4),
        st.sampled_from("ab"),
        st.integers(1, 9),
        st.integers(1, 50),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("advance"), st.integers(1, 3)),
    st.tuples(st.just("expire")),
    st.tuples(st.just("end"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("close")),
)


@settings(max_examples=150)
@given(plan=st.lists(steps, max_size=40), instances=st.integers(1, 2), has_lengths=st.booleans())
def test_every_caller_gets_exactly_one_outcome(
    plan: list[tuple[Any, ...]], instances: int, *, has_lengths: bool
) -> None:
    limits = {"max_tokens": 60} if has_lengths else {}
    world = World(instances=instances, max_rows=4, max_queue_rows=8, **limits)

    for kind, *arguments in plan:
        if kind == "submit":
            arguments[-1] *= has_lengths
        play(world, kind, *arguments)
        world.settle()
    world.end_every_run()

    assert world.scheduler.join(HANG_S)
    assert all(len(call.outcomes) == 1 for call in world.calls)
    assert all(is_allowed(call) for call in world.calls)
    assert world.scheduler.load() == Load(0, 0, 0)


def play(world: World, kind: str, *arguments: Any) -> None:
    match kind:
        case "submit":
            rows, key, patience, length = arguments
            before = world.scheduler.load()
            try:
                deadline_s = world.clock.now + patience
                world.submit(rows=rows, key=key, length=length, deadline_s=deadline_s)
            except Overloaded:
                assert before.waiting_rows + rows > 8
            except Draining:
                pass
        case "cancel" if world.calls:
            world.scheduler.cancel(world.calls[arguments[0] % len(world.calls)])
        case "advance":
            world.clock.advance(arguments[0])
        case "expire":
            assert world.scheduler.expire(world.clock.now) > world.clock.now
        case "end" if world.running:
            position, fails = arguments
            error = ValueError("planned") if fails else None
            world.end_run(error, position % len(world.running))
        case "close":
            world.scheduler.close()


def is_allowed(call: Call) -> bool:
    return call.has_right_answer or any(
        call.failed_with(error) for error in (Cancelled, DeadlineExceeded, ValueError)
    )


def test_requests_are_running_until_they_are_counted() -> None:
    """Who sees no running requests may trust the counters."""
    seen: list[int] = []

    class Watching(World):
        def batch_ran(
            self, requests: Sequence[CountedRequest], times: BatchTimes, tokens: Tokens
        ) -> None:
            seen.append(self.scheduler.load().running_requests)
            super().batch_ran(requests, times, tokens)

    world = Watching()
    call = world.submit_and_run()
    world.end_run()
    world.settle()

    assert call.has_right_answer
    assert seen == [1]
    assert world.scheduler.load() == Load(0, 0, 0)
    world.end_every_run()
    assert world.scheduler.join(HANG_S)


@pytest.mark.parametrize("comes_back", [True, False], ids=["comes back", "stays away"])
def test_session_waits_for_the_caller_it_answered(*, comes_back: bool) -> None:
    """Two callers who ask again once they are answered end up in one batch, not in turns."""
    world = World(regroup_share=0.02)
    first = world.submit_and_run()
    second = world.submit()
    world.clock.advance(10.0)
    world.end_run()
    world.wait_for(lambda: bool(first.outcomes))

    if comes_back:
        again = world.submit()
        expected = [second.number, again.number]
    else:
        world.clock.advance(0.2)
        expected = [second.number]
    world.wait_for(lambda: bool(world.running))

    assert world.batches[1] == expected
    world.end_every_run()
    assert world.scheduler.join(HANG_S)
