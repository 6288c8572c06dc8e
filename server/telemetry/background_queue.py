"""What is written somewhere slow, off the threads that must not wait for it.

A disk may be full, a pipe unread: whoever has something to say puts it here and goes on. What finds no room is lost
and counted.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundQueue(Generic[T]):
    """A bounded queue in front of one thread, which is started at once.

    Args:
        take: is given each item on that thread; what it raises loses the item.
        name: of the thread.
        limit: items that may wait.
    """

    def __init__(self, take: Callable[[T], None], *, name: str, limit: int) -> None:
        self._take = take
        self._limit = limit
        self._waiting: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._lock = threading.Lock()
        self._dropped = 0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def dropped(self) -> int:
        """Items that nobody got."""
        with self._lock:
            return self._dropped

    @property
    def is_half_full(self) -> bool:
        """Whether what matters less should be left out."""
        return self._waiting.qsize() > self._limit // 2

    def put(self, item: T) -> bool:
        """Hand an item over, without waiting; False if there is no room, which is the caller's to count."""
        # Several threads may pass this together and overfill the queue by as many items: no lock is worth that.
        has_room = self._waiting.qsize() < self._limit
        if has_room:
            self._waiting.put(item)
        return has_room

    def drop(self) -> None:
        """Count an item that nobody gets."""
        with self._lock:
            self._dropped += 1

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was put here is taken; False if that takes longer."""
        reached = threading.Event()
        self._waiting.put(reached)
        return reached.wait(timeout_s)

    def _run(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                self._take(item)
            except Exception:  # noqa: BLE001 - a line in the log may be what failed
                self.drop()
            del item
