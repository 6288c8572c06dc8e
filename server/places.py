"""Where a scheduler's requests are: waiting, running, or gone."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from server.request import Queued


@dataclass(frozen=True, slots=True)
class Load:
    """How much a scheduler holds at this moment."""

    waiting_requests: int
    waiting_rows: int
    running_requests: int


R = TypeVar("R", bound=Queued)


@dataclass(slots=True)
class Places(Generic[R]):
    """Where requests are; every access is under the lock."""

    waiting: OrderedDict[R, None] = field(default_factory=OrderedDict)
    running: set[R] = field(default_factory=set)
    # Run, and gone from here, but not yet answered and counted.
    answering: int = 0
    waiting_rows: int = 0
    idle_threads: int = 0
    closed: bool = False

    def take(self, request: R) -> bool:
        """Remove a request from wherever it is; False if it is gone already."""
        if request in self.waiting:
            del self.waiting[request]
            self.waiting_rows -= request.rows
            return True
        if request in self.running:
            self.running.remove(request)
            return True
        return False
