import threading
import time
from collections.abc import Iterator
from queue import Empty, Queue

import pytest

from tests.unit.server.conftest import Clock
from weir.server.scheduling.deadlines import Deadlines

# Only ever reached by a test that fails.
HANG_S = 20.0
NEVER = float("inf")


class Expiring:
    """A fake queue: records its calls of `expire`, and returns what the test sets."""

    def __init__(self, *deadlines_s: float) -> None:
        self.asked_at: Queue[float] = Queue()
        self._answers = list(deadlines_s)

    def expire(self, now: float) -> float:
        answer = self._answers.pop(0) if self._answers else NEVER
        self.asked_at.put(now)
        return answer


@pytest.fixture
def deadlines(clock: Clock) -> Iterator[Deadlines]:
    watcher = Deadlines(clock)
    watcher.start()
    yield watcher
    watcher.stop()


def test_due_deadline_is_asked_for(deadlines: Deadlines, clock: Clock) -> None:
    queue = Expiring()
    deadlines.watch(queue)

    deadlines.expect(clock.now)

    assert queue.asked_at.get(timeout=HANG_S) == clock.now


def test_earlier_deadline_wakes_the_sleeper(deadlines: Deadlines, clock: Clock) -> None:
    queue = Expiring()
    deadlines.watch(queue)
    deadlines.expect(clock.now + 1e6)
    clock.advance(2.0)

    deadlines.expect(clock.now - 1.0)

    assert queue.asked_at.get(timeout=HANG_S) == clock.now


def test_every_queue_is_asked(deadlines: Deadlines, clock: Clock) -> None:
    queues = [Expiring() for _ in range(3)]
    for queue in queues:
        deadlines.watch(queue)

    deadlines.expect(clock.now)

    for queue in queues:
        assert queue.asked_at.get(timeout=HANG_S) == clock.now


def test_the_next_deadline_of_a_queue_is_kept(deadlines: Deadlines, clock: Clock) -> None:
    """It answers with one that is due again, and later with none."""
    queue = Expiring(clock.now, clock.now)
    deadlines.watch(queue)

    deadlines.expect(clock.now)

    for _ in range(3):
        assert queue.asked_at.get(timeout=HANG_S) == clock.now


def test_no_queue_is_expired_before_a_deadline(deadlines: Deadlines, clock: Clock) -> None:
    early, woken = Expiring(), Expiring()
    deadlines.watch(early)
    deadlines.expect(clock.now + 1e6)
    deadlines.forget(early)
    deadlines.watch(woken)
    deadlines.expect(clock.now)

    woken.asked_at.get(timeout=HANG_S)

    with pytest.raises(Empty):
        early.asked_at.get_nowait()


def test_forgotten_queue_is_not_asked(deadlines: Deadlines, clock: Clock) -> None:
    forgotten, watched = Expiring(), Expiring()
    deadlines.watch(forgotten)
    deadlines.watch(watched)

    deadlines.forget(forgotten)
    deadlines.forget(forgotten)
    deadlines.expect(clock.now)
    watched.asked_at.get(timeout=HANG_S)

    with pytest.raises(Empty):
        forgotten.asked_at.get_nowait()


def test_deadline_of_a_running_clock_is_met() -> None:
    queue = Expiring()
    deadlines = Deadlines(time.monotonic)
    deadlines.start()
    deadlines.watch(queue)
    deadline_s = time.monotonic() + 0.02

    deadlines.expect(deadline_s)

    assert queue.asked_at.get(timeout=HANG_S) >= deadline_s
    deadlines.stop()


@pytest.mark.parametrize("deadline_s", [NEVER, 1e300], ids=["never", "longer than a lock can wait"])
def test_far_deadlines_do_no_harm(deadlines: Deadlines, clock: Clock, deadline_s: float) -> None:
    queue = Expiring()
    deadlines.watch(queue)

    deadlines.expect(deadline_s)
    deadlines.expect(clock.now)

    assert queue.asked_at.get(timeout=HANG_S) == clock.now


def test_stop_ends_the_thread_in_its_sleep(clock: Clock) -> None:
    deadlines = Deadlines(clock)
    deadlines.start()
    deadlines.expect(clock.now + 1e6)

    deadlines.stop()

    assert "weir-deadlines" not in {thread.name for thread in threading.enumerate()}


def test_stop_before_start_does_nothing(clock: Clock) -> None:
    Deadlines(clock).stop()
