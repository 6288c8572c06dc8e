import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.server.scheduling.scheduler_world import (
    HANG_S,
    LATER,
    Array,
    Call,
    World,
    ending,
)
from weir.server.errors import Cancelled, DeadlineExceeded, Draining, Overloaded
from weir.server.runtime.collate import Tokens
from weir.server.runtime.session import RunStop
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Load
from weir.server.scheduling.scheduler import Scheduler
from weir.server.telemetry.model_stats import BatchTimes, CountedRequest
from weir.server.transport.wakeups import Wakeups


@pytest.fixture
def world() -> Iterator[World]:
    yield from ending(World())


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


def test_batch_of_as_many_tokens_as_allowed_does_not_wait() -> None:
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


def test_cancelling_at_the_deadline_is_a_deadline_exceeded(world: World) -> None:
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


def test_request_that_expires_while_a_session_is_busy_fails_at_once(world: World) -> None:
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


def test_late_request_that_cannot_be_failed_delays_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither other late requests, nor those that still wait for the thread."""
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


def test_queue_time_ends_when_the_batch_is_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other requests are refused between the cut and the run."""
    world.submit_and_run()
    late = world.submit(deadline_s=1.0)

    def fail_slowly(error: Exception) -> None:
        Call.fail(late, error)
        world.clock.advance(5.0)

    monkeypatch.setattr(late, "fail", fail_slowly)
    world.submit()
    world.clock.advance(2.0)

    world.end_run()
    world.wait_for(lambda: len(world.running) == 1)
    world.end_run()

    world.wait_for(lambda: len(world.observed) == 2)
    (_, (numbers, times)) = world.observed
    assert numbers == [3]
    assert (times.cut_s, times.run_s) == (2.0, 7.0)


def test_observer_gets_each_batch_once_with_its_times(world: World) -> None:
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
    limits: dict[str, Any] = {"max_tokens": 60} if has_lengths else {}
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
    """Two callers in a closed loop share a batch, instead of taking turns."""
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


@dataclass
class StoppableRuns:
    """Runs of a graph that end when the test lets them; see `World`."""

    world: World
    stops: list[RunStop] = field(default_factory=list)
    may_end: threading.Event = field(default_factory=threading.Event)

    def run(self, inputs: Mapping[str, Array], stop: RunStop) -> dict[str, Array]:
        with self.world.changed:
            self.stops.append(stop)
            self.world.changed.notify_all()
        assert self.may_end.wait(HANG_S)
        return {"y": -inputs["x"]}

    def scheduler(self) -> Scheduler:
        scheduler = Scheduler(
            "endless",
            lambda _: pytest.fail("a stoppable run is used instead"),
            stoppable_run=self.run,
            policy=BatchPolicy(2, max_queue_delay_s=1e6),
            max_queue_rows=8,
            instances=1,
            has_rows=True,
            deadlines=Deadlines(self.world.clock),
            observer=self.world.batch_ran,
            clock=self.world.clock,
        )
        scheduler.start()
        return scheduler


@pytest.mark.parametrize("leave", ["cancelled", "expired"])
def test_run_is_stopped_when_all_its_requests_have_left(leave: str, world: World) -> None:
    runs = StoppableRuns(world)
    scheduler = runs.scheduler()
    first, second = (world.call(deadline_s=deadline_s) for deadline_s in (10.0, 20.0))
    scheduler.submit(first)
    scheduler.submit(second)
    world.wait_for(lambda: bool(runs.stops))
    (stop,) = runs.stops

    stopped = []
    for request, after_s in ((first, 15.0), (second, 25.0)):
        if leave == "cancelled":
            scheduler.cancel(request)
        else:
            scheduler.expire(after_s)
        stopped.append(bool(stop.options.terminate))

    assert stopped == [False, True]
    runs.may_end.set()
    scheduler.close()
    assert scheduler.join(HANG_S)


@pytest.fixture
def gathering() -> Iterator[tuple[World, Wakeups]]:
    """A world whose test is the I/O thread."""
    wakeups = Wakeups()
    wakeups.adopt_thread()
    world = World(wakeups=wakeups, max_rows=3)
    ending_world = ending(world)
    next(ending_world)
    yield world, wakeups
    wakeups.end_gathering()
    next(ending_world, None)


def test_batch_is_cut_once_the_io_thread_has_read_what_arrived(
    gathering: tuple[World, Wakeups],
) -> None:
    world, wakeups = gathering

    calls = [world.submit(), world.submit()]
    time.sleep(0.01)
    assert world.batches == []
    wakeups.end_gathering()
    world.wait_for(lambda: bool(world.running))

    assert world.batches == [[call.number for call in calls]]


def test_full_batch_is_cut_while_the_io_thread_still_reads(
    gathering: tuple[World, Wakeups],
) -> None:
    world, _ = gathering

    calls = [world.submit() for _ in range(3)]
    world.wait_for(lambda: bool(world.running))

    assert world.batches == [[call.number for call in calls]]


def test_free_session_does_not_cut_what_the_io_thread_still_reads(
    gathering: tuple[World, Wakeups],
) -> None:
    world, wakeups = gathering
    first = world.submit()
    wakeups.end_gathering()
    world.wait_for(lambda: bool(world.running))

    second = world.submit()
    world.end_run()
    world.wait_for(lambda: bool(first.outcomes))
    time.sleep(0.01)
    assert world.batches == [[first.number]]
    third = world.submit()
    wakeups.end_gathering()
    world.wait_for(lambda: len(world.batches) == 2)

    assert world.batches[1] == [second.number, third.number]


def test_request_of_another_thread_is_not_gathered(gathering: tuple[World, Wakeups]) -> None:
    world, _ = gathering

    thread = threading.Thread(target=world.submit)
    thread.start()
    thread.join()
    world.wait_for(lambda: bool(world.running))

    assert world.batches == [[1]]


def test_closed_queue_does_not_wait_for_the_io_thread(gathering: tuple[World, Wakeups]) -> None:
    world, _ = gathering

    call = world.submit()
    world.scheduler.close()
    world.wait_for(lambda: bool(world.running))

    assert world.batches == [[call.number]]
