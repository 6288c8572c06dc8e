import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.unit.server.conftest import Clock
from weir.server.transport.wakeups import MAX_GATHER_S, Wakeups

_OPERATIONS = ("send",)


class Call:
    """A fake call of gRPC core: it records the operation batches that are started on it."""

    def __init__(self, *, takes_batches: bool = True) -> None:
        self.started: list[tuple[tuple[Any, ...], str]] = []
        self.takes_batches = takes_batches

    def start_server_batch(self, operations: tuple[Any, ...], _tag: Callable[[Any], None]) -> None:
        if not self.takes_batches and not operations:
            raise ValueError("call has ended")
        self.started.append((operations, threading.current_thread().name))


def started_by_another_thread(work: Callable[[], None]) -> None:
    """Run `work` on a thread named `session`."""
    thread = threading.Thread(target=work, name="session")
    thread.start()
    thread.join()


@pytest.fixture
def wakeups() -> Wakeups:
    """Of a transport whose I/O thread is the thread of the test."""
    wakeups = Wakeups()
    wakeups.adopt_thread()
    return wakeups


def test_answer_of_the_io_thread_is_started_at_once(wakeups: Wakeups) -> None:
    call = Call()

    wakeups.start(call, _OPERATIONS)

    assert [operations for operations, _ in call.started] == [_OPERATIONS]


def test_single_answer_is_started_by_its_own_thread_while_the_io_thread_waits(
    wakeups: Wakeups,
) -> None:
    call = Call()
    assert wakeups.before_wait()

    started_by_another_thread(lambda: wakeups.start(call, _OPERATIONS))

    assert call.started == [(_OPERATIONS, "session")]


def test_answers_of_a_batch_are_sent_by_one_wake_up(wakeups: Wakeups) -> None:
    calls = [Call() for _ in range(3)]

    def answer() -> None:
        with wakeups.corked():
            for call in calls:
                wakeups.start(call, _OPERATIONS)
            assert not any(call.started for call in calls)

    assert wakeups.before_wait()
    started_by_another_thread(answer)
    woken = [operations for call in calls for operations, _ in call.started]
    wakeups.after_wait()
    wakeups.start_answers()

    assert woken == [()]
    me = threading.current_thread().name
    assert all((_OPERATIONS, me) in call.started for call in calls)


def test_busy_io_thread_is_not_woken_and_finds_the_answers_before_it_waits(
    wakeups: Wakeups,
) -> None:
    call = Call()

    started_by_another_thread(lambda: wakeups.start(call, _OPERATIONS))

    assert call.started == []
    assert not wakeups.before_wait()
    wakeups.start_answers()
    assert [operations for operations, _ in call.started] == [_OPERATIONS]
    assert wakeups.before_wait()


def test_answers_are_sent_if_no_call_can_wake_the_io_thread(wakeups: Wakeups) -> None:
    calls = [Call(takes_batches=False) for _ in range(2)]

    def answer() -> None:
        with wakeups.corked():
            for call in calls:
                wakeups.start(call, _OPERATIONS)

    assert wakeups.before_wait()
    started_by_another_thread(answer)
    started_by_another_thread(answer)

    assert [call.started for call in calls] == [[(_OPERATIONS, "session")] * 2] * 2


def test_answers_made_before_an_error_are_sent(wakeups: Wakeups) -> None:
    call = Call()

    def answer() -> None:
        with suppress(ZeroDivisionError), wakeups.corked():
            wakeups.start(call, _OPERATIONS)
            raise ZeroDivisionError

    assert wakeups.before_wait()
    started_by_another_thread(answer)

    assert call.started == [(_OPERATIONS, "session")]


def test_answer_that_cannot_be_started_harms_no_other(
    wakeups: Wakeups, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Call):
        def start_server_batch(self, *_: object) -> None:
            raise ValueError("call has ended")

    call = Call()
    started_by_another_thread(lambda: wakeups.start(Broken(), _OPERATIONS))
    started_by_another_thread(lambda: wakeups.start(call, _OPERATIONS))

    wakeups.start_answers()

    assert [operations for operations, _ in call.started] == [_OPERATIONS]
    assert "answer lost" in caplog.text


def test_only_the_io_thread_gathers(wakeups: Wakeups) -> None:
    gathered: list[str] = []

    assert wakeups.gather(lambda: gathered.append("here"))
    started_by_another_thread(lambda: gathered.append(str(wakeups.gather(print))))
    wakeups.end_gathering()
    wakeups.end_gathering()

    assert gathered == ["False", "here"]


def test_polls_that_find_no_event_become_rare(wakeups: Wakeups) -> None:
    wakeups.gather(lambda: None)
    wakeups.polled(has_found=True)
    polls = 0
    for _ in range(1000):
        if wakeups.should_poll():
            wakeups.polled(has_found=False)
            polls += 1

    assert polls < 200
    wakeups.polled(has_found=True)
    assert wakeups.should_poll()


def test_gathering_does_not_last() -> None:
    clock = Clock(0.0)
    wakeups = Wakeups(clock)
    wakeups.adopt_thread()
    wakeups.polled(has_found=True)
    wakeups.gather(lambda: None)
    should_poll_first = wakeups.should_poll()

    clock.now += MAX_GATHER_S

    assert should_poll_first
    assert not wakeups.should_poll()


def test_requests_that_cannot_be_gathered_harm_no_other(
    wakeups: Wakeups, caplog: pytest.LogCaptureFixture
) -> None:
    gathered: list[str] = []

    def broken() -> None:
        raise RuntimeError("planned")

    wakeups.gather(broken)
    wakeups.gather(lambda: gathered.append("other model"))
    wakeups.end_gathering()
    wakeups.end_gathering()

    assert gathered == ["other model"]
    assert caplog.text.count("gathering not ended") == 1
