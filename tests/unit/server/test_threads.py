"""Supervision of threads: what the watchdog takes for stuck. The ends are integration tests."""

import logging
from collections.abc import Callable

import pytest

from weir.server.threads import THREAD_STUCK, Watchdog

LOOKS = 4


class Fake:
    """A thread that shows the numbers which the test sets."""

    thread_name = "weir-fake"

    def __init__(self, turns: float | None) -> None:
        self.now = turns

    def turns(self) -> float | None:
        return self.now


class Ends:
    """What the watchdog ended the process with."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.text = ""

    def __call__(self, code: int, record: logging.LogRecord) -> None:
        self.codes.append(code)
        self.text = f"{record.getMessage()} {record.stack_info}"


@pytest.fixture
def ends() -> Ends:
    return Ends()


def watching(thread: Fake, ends: Ends, changed: Callable[[], None] = lambda: None) -> Watchdog:
    watchdog = Watchdog(60.0, changed, end=ends)
    watchdog.watch(thread)
    watchdog.look()
    return watchdog


def test_thread_that_does_not_turn_for_the_whole_timeout_ends_the_process(ends: Ends) -> None:
    watchdog = watching(Fake(7), ends)

    for _ in range(LOOKS - 1):
        watchdog.look()
    before = list(ends.codes)
    watchdog.look()

    assert (before, ends.codes) == ([], [THREAD_STUCK])
    assert "thread stuck thread=weir-fake timeout_s=60" in ends.text
    assert "Thread MainThread:" in ends.text and "test_threads.py" in ends.text


@pytest.mark.parametrize("turns", [(1, 2), (None, None), (1, 1, 1, None)], ids=str)
def test_thread_that_turns_or_has_no_work_is_left_alone(
    turns: tuple[float | None, ...], ends: Ends
) -> None:
    thread = Fake(0)
    watchdog = watching(thread, ends)

    for number in range(3 * LOOKS):
        thread.now = turns[number % len(turns)]
        watchdog.look()

    assert ends.codes == []


def test_server_is_not_healthy_while_a_thread_may_be_stuck(ends: Ends) -> None:
    seen: list[bool] = []
    thread = Fake(0)
    watchdog = watching(thread, ends, lambda: seen.append(watchdog.is_healthy))

    for _ in range(LOOKS - 1):
        watchdog.look()
    thread.now = 1
    watchdog.look()

    assert seen == [False, True] and watchdog.is_healthy
    assert ends.codes == []
