"""Where a scheduler's requests are: waiting, running, or gone."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from weir.server.errors import Draining, Overloaded
from weir.server.scheduling.request import Load, QueuedRequest

R = TypeVar("R", bound=QueuedRequest)


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

    def put(self, request: R, *, name: str, max_rows: int) -> None:
        """Let a request wait.

        Args:
            request: new here.
            name: of the model, for messages.
            max_rows: that may wait.

        Raises:
            Overloaded: its rows do not fit.
            Draining: the places are closed.
        """
        if self.closed:
            raise Draining(f"model {name!r} is being unloaded")
        # Into an empty queue every request fits: refused there, it would be refused for ever.
        if self.waiting and self.waiting_rows + request.rows > max_rows:
            raise Overloaded(
                f"model {name!r}: {self.waiting_rows} rows wait, the limit is {max_rows}"
            )
        self.waiting[request] = None
        self.waiting_rows += request.rows

    def load(self) -> Load:
        """How much is here."""
        running = len(self.running) + self.answering
        return Load(len(self.waiting), self.waiting_rows, running)

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
