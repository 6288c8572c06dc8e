"""Byte budget: a bound of the bytes of requests in flight."""

import threading

from weir.server.errors import Overloaded


class ByteBudget:
    """A bound of the bytes of requests in flight: of one model, within that of all.

    The bytes are those of the message, of the decoded inputs, and of the answer if its size is
    known. An empty budget takes a request of any size, which would otherwise never be taken.

    Args:
        limit_bytes: None: no bound.
        whole: the budget of all models, which this one is a part of.
    """

    __slots__ = ("_whole", "held_bytes", "limit_bytes", "lock", "name", "refused")

    def __init__(
        self, name: str, limit_bytes: int | None = None, whole: "ByteBudget | None" = None
    ) -> None:
        self.name = name
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.refused = 0
        self._whole = whole
        self.lock: threading.Lock = whole.lock if whole else threading.Lock()

    def take(self, count: int) -> None:
        """Count a request's bytes as in flight.

        Raises:
            Overloaded: they do not fit.
        """
        whole = self._whole
        with self.lock:
            self.check(count)
            if whole is not None:
                whole.check(count)
                whole.held_bytes += count
            self.held_bytes += count

    def give_back(self, count: int) -> None:
        """Bytes that were taken are no longer in flight."""
        with self.lock:
            self.held_bytes -= count
            if self._whole is not None:
                self._whole.held_bytes -= count

    def check(self, count: int) -> None:
        """Refuse a request whose bytes do not fit; called under the lock."""
        limit_bytes, held_bytes = self.limit_bytes, self.held_bytes
        if limit_bytes is not None and held_bytes and held_bytes + count > limit_bytes:
            (self._whole or self).refused += 1
            raise Overloaded(
                f"{self.name}: requests of {held_bytes} bytes are in flight, the limit is "
                f"{limit_bytes}, this one needs {count}"
            )
