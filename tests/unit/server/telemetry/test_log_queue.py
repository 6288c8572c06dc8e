import threading
from collections.abc import Callable

from weir.server.telemetry.log import BackgroundQueue

HANG_S = 20.0


class Slow:
    """Processes an item only when the test releases it."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.is_at_work = threading.Event()
        self.may_go_on = threading.Event()

    def take(self, item: int) -> None:
        self.is_at_work.set()
        assert self.may_go_on.wait(HANG_S)
        self.taken.append(item)


def queue_of(take: Callable[[int], None], limit: int = 100) -> BackgroundQueue[int]:
    return BackgroundQueue(take, name="test-queue", limit=limit)


def test_items_are_processed_in_order_on_one_thread() -> None:
    taken: list[tuple[int, str]] = []
    queue = queue_of(lambda item: taken.append((item, threading.current_thread().name)))

    assert all(queue.put(number) for number in range(10))

    assert queue.drain(HANG_S)
    assert taken == [(number, "test-queue") for number in range(10)]


def test_put_returns_at_once_and_false_if_the_queue_is_full() -> None:
    slow = Slow()
    queue = queue_of(slow.take, limit=4)
    queue.put(0)
    assert slow.is_at_work.wait(HANG_S)

    has_room = [queue.put(number) for number in range(1, 7)]

    assert has_room == [True] * 4 + [False] * 2
    assert queue.is_half_full
    slow.may_go_on.set()
    assert queue.drain(HANG_S)
    assert slow.taken == [0, 1, 2, 3, 4]
    assert not queue.is_half_full


def test_drain_stops_at_its_timeout() -> None:
    slow = Slow()
    queue = queue_of(slow.take)
    queue.put(0)

    assert not queue.drain(0.01)

    slow.may_go_on.set()
    assert queue.drain(HANG_S)


def test_item_that_raises_is_dropped_and_the_next_is_processed() -> None:
    taken: list[int] = []

    def take(item: int) -> None:
        if item == 1:
            raise OSError("disk full")
        taken.append(item)

    queue = queue_of(take)
    for number in range(3):
        queue.put(number)

    assert queue.drain(HANG_S)
    assert taken == [0, 2]
    assert queue.dropped == 1
