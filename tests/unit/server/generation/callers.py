"""A fake request, and what became of it."""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from weir.server.generation.row import Row
from weir.server.telemetry.request_record import RequestRecord

LATER = 1e9


@dataclass(eq=False)
class Caller:
    """A request of some rows, which it owns from now on.

    Attributes:
        answer_error: raised where it should be answered.
        fail_error: raised where it should be told of a failure, after it was.
        outcomes: what it got: "answered", or why it was not.
        changed: notified of each outcome.
    """

    sources: Sequence[Row]
    arrived_s: float = 0.0
    queued_s: float = 0.0
    deadline_s: float = LATER
    answer_error: Exception | None = None
    fail_error: Exception | None = None
    is_answered: bool = False
    record: RequestRecord | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    key: Hashable = ()
    length: int = 0
    outcomes: list[str | Exception] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    on_answer: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.rows = len(self.sources)
        for row in self.sources:
            row.owner = self

    def answer(self) -> None:
        if self.answer_error is not None:
            raise self.answer_error
        self.is_answered = True
        self._end("answered")

    def fail(self, error: Exception) -> None:
        self._end(error)
        if self.fail_error is not None:
            raise self.fail_error

    def _end(self, outcome: str | Exception) -> None:
        with self.changed:
            self.outcomes.append(outcome)
            self.changed.notify_all()
