"""Answers of a stream put back in the order of their requests. No I/O.

The requests of a stream are numbered from 0, and the number is the id that the answer carries.
"""

from collections.abc import Iterator

from weir.client.errors import CallError, Internal, Unavailable
from weir.client.results import Answer


class InOrder:
    """Holds answers that came early until those before them are there.

    Attributes:
        due: the number of the answer that is waited for, and so how many were handed out.
    """

    def __init__(self) -> None:
        self.due = 0
        self._early: dict[str, Answer | CallError] = {}

    def put(self, request_id: str, outcome: Answer | CallError) -> Iterator[Answer]:
        """Take one outcome and yield the answers whose turn it is; a failure raises at its turn."""
        if not request_id and isinstance(outcome, CallError):
            raise outcome
        if not request_id.isdecimal() or int(request_id) < self.due or request_id in self._early:
            raise Internal(f"an answer to {request_id!r}, which is not waited for")
        self._early[request_id] = outcome
        while (ready := self._early.pop(str(self.due), None)) is not None:
            self.due += 1
            if isinstance(ready, CallError):
                raise ready
            yield ready

    def check_complete(self, sent: int, *, all_sent: bool) -> None:
        """Raise Unavailable unless every one of the requests was sent and answered."""
        if not all_sent or self.due != sent:
            raise Unavailable(f"the stream ended after {self.due} answers to {sent} requests")
