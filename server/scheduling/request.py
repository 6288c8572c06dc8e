"""A request as the scheduler sees it, and what it is told of a batch."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from weir.server.runtime.collate import Tokens
from weir.server.telemetry.request_record import RequestRecord

logger = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """When a batch went through its stations, in seconds on the scheduler's clock."""

    cut_s: float
    run_s: float
    ran_s: float
    answered_s: float


class Refusable(Protocol):
    """One call that can be told of its failure."""

    def fail(self, error: Exception) -> None:
        """Say why there is no answer."""


class Queued(Refusable, Protocol):
    """One call, as the queue of a model sees it.

    Attributes:
        rows: counted against the queue's and the batch's limits.
        key: requests with equal keys may share a batch.
        length: entries of each row, 0 where that plays no part.
        arrived_s: when the call came, on the scheduler's clock.
        queued_s: since when it waits for nothing but this model.
        deadline_s: never run after this time.
        is_answered: whether its answer reached somebody.
        record: what is noted of it; None: nobody wants to hear of it.
        request_bytes: of its message.
    """

    rows: int
    key: Hashable
    length: int
    arrived_s: float
    queued_s: float
    deadline_s: float
    is_answered: bool
    record: RequestRecord | None
    request_bytes: int

    @property
    def response_bytes(self) -> int:
        """Of what was sent of its answer."""


class Request(Queued, Protocol):
    """One call that waits for its rows. It gets exactly one of `answer` and `fail`.

    Attributes:
        inputs: by name; (rows, …) where the model has rows.
    """

    inputs: Mapping[str, Array]

    def answer(self, outputs: Mapping[str, Array]) -> None:
        """Send the request's own rows."""


class Observer(Protocol):
    """What a scheduler tells of each batch, once it is answered."""

    def batch_ran(self, requests: Sequence[Request], times: BatchTimes, tokens: Tokens) -> None:
        """These requests were run and answered, or given up while running."""


def refuse(request: Refusable, error: Exception) -> None:
    """Tell a request of its failure; what goes wrong with that is one caller's, and the others still wait."""
    try:
        request.fail(error)
    except Exception:
        logger.exception("failure lost")
