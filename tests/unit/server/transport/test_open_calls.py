"""The bound of open calls, and the time for the first message."""

from collections.abc import Callable

import grpc
import pytest

from tests.unit.server.conftest import Clock, FakeCall
from weir.server.errors import Overloaded
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
