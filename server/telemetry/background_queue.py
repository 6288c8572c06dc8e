"""A bounded queue in front of one thread, so that no other thread waits for a slow disk.

An item that finds the queue full is dropped and counted.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundQueue(Generic[T]):
    """A bounded queue whose items one thread processes; the thread starts at once.

    Args:
        take: processes an item on that thread; an item whose processing raises is dropped.
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
        """Number of dropped items."""
        with self._lock:
            return self._dropped

    @property
    def is_half_full(self) -> bool:
        """Whether the caller should keep back less important items."""
        return self._waiting.qsize() > self._limit // 2

    def put(self, item: T) -> bool:
        """Queue an item without waiting; False if the queue is full. The caller counts the drop."""
        # Threads that pass this check together overfill the queue by one item each. A lock would
        # cost more than those items.
        has_room = self._waiting.qsize() < self._limit
        if has_room:
            self._waiting.put(item)
        return has_room

    def drop(self) -> None:
        """Count a dropped item."""
        with self._lock:
            self._dropped += 1

    def drain(self, timeout_s: float) -> bool:
        """Wait until every queued item is processed; False after the timeout."""
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
            except Exception:  # noqa: BLE001 - writing a log line about it might fail too
                self.drop()
            del item
