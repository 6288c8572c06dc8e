"""A request of an engine that records its outcome instead of answering a call."""

import threading
from collections.abc import Hashable, Sequence

from weir.server.generation.decoder_batch import Row
from weir.server.generation.request import GenerationRequest

LATER = 1e9


class Caller(GenerationRequest):
    """A request of some rows.

    Args:
        answer_error: raised by `answer`.
        fail_error: raised by `fail`, after the outcome is recorded.

    Attributes:
        outcomes: "answered", or the failure.
        changed: notified of each outcome.
    """

    def __init__(
        self,
        sources: Sequence[Row],
        *,
        arrived_s: float = 0.0,
        queued_s: float = 0.0,
        deadline_s: float = LATER,
        answer_error: Exception | None = None,
        fail_error: Exception | None = None,
    ) -> None:
        self.inputs = sources
        self.rows = self.work = len(sources)
        self.arrived_s, self.queued_s, self.deadline_s = arrived_s, queued_s, deadline_s
        self.key: Hashable = ()
        self.length = self.request_bytes = self.response_bytes = 0
        self.is_answered = False
        self.record = None
        self.answer_error, self.fail_error = answer_error, fail_error
        self.outcomes: list[str | Exception] = []
        self.changed = threading.Condition()

    def answer(self, outputs: Sequence[Row]) -> None:
        if self.answer_error is not None:
            raise self.answer_error
        self.is_answered = True
        self._record_outcome("answered")

    def fail(self, error: Exception) -> None:
        self._record_outcome(error)
        if self.fail_error is not None:
            raise self.fail_error

    def _record_outcome(self, outcome: str | Exception) -> None:
        with self.changed:
            self.outcomes.append(outcome)
            self.changed.notify_all()
