"""The bound of open calls, and the time for the first message."""

import weakref
from collections.abc import Callable

import grpc
import pytest

from tests.unit.server.conftest import Clock, FakeCall
from weir.server.errors import Draining, Overloaded
from weir.server.transport.base import Limits
from weir.server.transport.open_calls import MORE_PROBES, OpenCalls

HEALTH = "/grpc.health.v1.Health/Check"
LATE, EXHAUSTED = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED

Open = Callable[..., "TimedCall"]


class TimedCall(FakeCall):
    """A call that knows when it arrived."""

    def __init__(
        self, arrived_s: float, *, has_deadline: bool, method: str, may_rest: bool = False
    ) -> None:
        super().__init__()
        self.arrived_s = arrived_s
        self.has_deadline = has_deadline
        self.may_rest = may_rest
        self.method = method
        self.has_ended = False
        self.is_dropped = False

    def drop(self) -> None:
        self.is_dropped = True


def statuses(*calls: TimedCall) -> list[grpc.StatusCode | None]:
    return [call.code for call in calls]


@pytest.fixture
def calls(clock: Clock) -> OpenCalls:
    return OpenCalls(Limits(open_calls=3, default_deadline_s=60.0, max_deadline_s=600.0), clock)


@pytest.fixture
def opened(calls: OpenCalls, clock: Clock) -> Open:
    """Opens a call now."""

    def add(
        method: str = "/t.Test/Unary", *, has_deadline: bool = False, may_rest: bool = False
    ) -> TimedCall:
        call = TimedCall(clock.now, has_deadline=has_deadline, method=method, may_rest=may_rest)
        calls.add(call)
        return call

    return add


def test_call_without_a_message_ends_at_the_default_deadline(
    calls: OpenCalls, opened: Open, clock: Clock
) -> None:
    mute, spoke, gone = opened(), opened(), opened()
    calls.received(spoke)
    calls.discard(gone)
    clock.advance(59.0)
    assert calls.expire(clock.now) == clock.now + 1.0
    assert statuses(mute) == [None]

    clock.advance(1.0)
    assert calls.expire(clock.now) == clock.now + 60.0

    assert mute.details == "expected one message, none came within 60 s"
    assert statuses(mute, spoke, gone) == [LATE, None, None]


def test_call_with_a_deadline_ends_at_the_maximum(
    calls: OpenCalls, opened: Open, clock: Clock
) -> None:
    patient = opened(has_deadline=True)
    clock.advance(599.0)
    calls.expire(clock.now)
    assert statuses(patient) == [None]

    clock.advance(1.0)
    calls.expire(clock.now)

    assert statuses(patient) == [LATE]


def test_bidirectional_stream_rests_before_its_first_message_but_gives_its_place(
    calls: OpenCalls, opened: Open, clock: Clock
) -> None:
    resting = opened(may_rest=True)
    patient = opened(may_rest=True, has_deadline=True)
    clock.advance(6000.0)
    assert calls.expire(clock.now) == clock.now + 60.0
    assert statuses(resting, patient) == [None, None]
    calls.received(opened())

    opened()

    assert statuses(resting, patient) == [EXHAUSTED, None]


def test_call_that_arrives_after_a_look_is_ended_by_the_next(
    calls: OpenCalls, opened: Open, clock: Clock
) -> None:
    next_s = calls.expire(clock.now)
    mute = opened()

    assert next_s <= clock.now + 60.0
    assert calls.expire(next_s + 0.1) < float("inf")
    assert mute.code is LATE


def test_many_late_calls_are_ended_in_parts(clock: Clock) -> None:
    calls = OpenCalls(Limits(open_calls=1000), clock)
    mute = [TimedCall(clock.now, has_deadline=False, method="/t.Test/Unary") for _ in range(200)]
    for call in mute:
        calls.add(call)
    clock.advance(60.0)

    looks = 0
    while calls.waiting:
        assert calls.expire(clock.now) > clock.now
        looks += 1

    assert looks == 4
    assert {call.code for call in mute} == {LATE}


def test_call_beyond_the_bound_is_refused(calls: OpenCalls, opened: Open) -> None:
    for _ in range(3):
        calls.received(opened())

    with pytest.raises(Overloaded, match="3 calls are open"):
        opened()


def test_refused_call_gives_no_place(calls: OpenCalls, opened: Open, clock: Clock) -> None:
    for _ in range(3):
        calls.received(opened())
    with pytest.raises(Overloaded):
        opened()
    clock.advance(1.0)

    with pytest.raises(Overloaded):
        opened()


def test_call_that_has_waited_gives_its_place(calls: OpenCalls, opened: Open, clock: Clock) -> None:
    mute = [opened() for _ in range(3)]
    with pytest.raises(Overloaded):
        opened()
    clock.advance(1.0)

    opened()

    assert [call.code for call in mute] == [EXHAUSTED, None, None]


def test_probe_takes_any_place_or_one_more(calls: OpenCalls, opened: Open) -> None:
    mute = [opened() for _ in range(3)]
    opened(HEALTH)
    assert [call.code for call in mute] == [EXHAUSTED, None, None]
    for call in tuple(calls.waiting):
        calls.received(call)

    for _ in range(MORE_PROBES - 1):
        calls.received(opened(HEALTH))

    with pytest.raises(Overloaded):
        opened(HEALTH)


def test_answer_that_is_not_read_is_dropped_after_the_default_deadline(
    calls: OpenCalls, opened: Open, clock: Clock
) -> None:
    unread, read, running = opened(), opened(), opened()
    for call in (unread, read, running):
        calls.received(call)
    clock.advance(50.0)
    unread.has_ended = read.has_ended = True
    clock.advance(10.0)
    calls.expire(clock.now)
    calls.discard(read)
    clock.advance(59.0)
    calls.expire(clock.now)
    assert not unread.is_dropped

    clock.advance(1.0)
    calls.expire(clock.now)

    assert [call.is_dropped for call in (unread, read, running)] == [True, False, False]


def test_ended_call_gives_no_place(calls: OpenCalls, opened: Open, clock: Clock) -> None:
    """It has none to give: it is open until its client reads the status."""
    ended, mute, later = opened(), opened(), opened()
    ended.has_ended = True
    clock.advance(1.0)

    opened()

    assert statuses(ended, mute, later) == [None, EXHAUSTED, None]


def test_ended_calls_are_not_ended_again(clock: Clock) -> None:
    calls = OpenCalls(Limits(open_calls=1000), clock)
    ended = [TimedCall(clock.now, has_deadline=False, method="/t.Test/Unary") for _ in range(200)]
    mute = TimedCall(clock.now, has_deadline=False, method="/t.Test/Unary")
    for call in (*ended, mute):
        calls.add(call)
    for call in ended:
        call.has_ended = True
    clock.advance(60.0)

    calls.expire(clock.now)

    assert mute.code is LATE
    assert {call.code for call in ended} == {None}


def test_only_calls_that_wait_are_refused(calls: OpenCalls, opened: Open) -> None:
    mute, ended, other = opened(), opened(), opened("/t.Other/Unary")
    ended.has_ended = True

    count = calls.refuse_waiting(Overloaded("no memory"), ("/t.Test/",))

    assert count == 1
    assert statuses(mute, ended, other) == [EXHAUSTED, None, None]


def test_call_whose_message_comes_meanwhile_keeps_its_place(
    calls: OpenCalls, opened: Open, clock: Clock
) -> None:
    class Racing(TimedCall):
        """Its message comes on another thread, while this one looks when it arrived."""

        @property
        def arrived_s(self) -> float:
            calls.received(self)
            return clock.now - 1.0

        @arrived_s.setter
        def arrived_s(self, _: float) -> None:
            pass

    racing = Racing(clock.now, has_deadline=False, method="/t.Test/Unary")
    calls.add(racing)
    mute, _ = opened(), opened()
    clock.advance(1.0)

    opened()

    assert statuses(racing, mute) == [None, EXHAUSTED]


def test_closed_call_is_freed_at_once(calls: OpenCalls, opened: Open, clock: Clock) -> None:
    call = opened()
    calls.received(call)
    call.has_ended = True
    clock.advance(60.0)
    calls.expire(clock.now)
    kept = weakref.ref(call)

    calls.discard(call)
    del call

    assert kept() is None


def test_stop_refuses_new_calls_and_waits_for_those_that_came_before(
    calls: OpenCalls, opened: Open
) -> None:
    first, second = opened(), opened()
    calls.refuse_new()

    with pytest.raises(Draining, match="the server is stopping"):
        opened()
    calls.discard(first)
    is_over_too_early = calls.wait_for_accepted(0.0)
    calls.discard(second)

    assert not is_over_too_early
    assert calls.wait_for_accepted(0.0), "the refused call is not waited for"


def test_stop_without_an_open_call_waits_for_nothing(calls: OpenCalls) -> None:
    calls.refuse_new()

    assert calls.wait_for_accepted(0.0)
