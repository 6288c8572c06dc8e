"""One source on its way to its answers, and the request it belongs to."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weir.server.generation.beam_search import Beam
from weir.server.generation.sampling import Answer, Draw, Frame, Path, Search, Searching, Told
from weir.server.scheduling.request import QueuedRequest
from weir.server.telemetry.request_record import RequestRecord

Array = NDArray[Any]


class GenerationRequest(QueuedRequest, Protocol):
    """A call that waits for the answers of its rows. It gets exactly one of `answer` and `fail`.

    Attributes:
        sources: its rows.
    """

    sources: Sequence["Row"]

    def answer(self) -> None:
        """Send what was found for `sources`, all of which have ended."""


@dataclass(slots=True, eq=False)
class Row:
    """One source, and what becomes of it.

    Attributes:
        number: its place in the request.
        inputs: of the encoder, without the batch axis: (length, …) where they have time, or (…).
        length: of the source.
        limit: the most steps.
        search: what is wanted of it.
        arrived_s: when its request came, on the engine's clock.
        attends: whether its answers tell where they looked.
        told: hears each token, where there is one answer and no beam.
        answers: best first, once it has ended.
        first_s: when its first step was made, on the engine's clock.
        sent_bytes: of messages with its tokens.
    """

    number: int
    inputs: Mapping[str, Array]
    length: int
    limit: int
    search: Search
    arrived_s: float
    attends: bool = False
    told: Told | None = None
    answers: list[Answer] = field(default_factory=list)
    first_s: float = 0.0
    sent_bytes: int = 0
    _open: int = 0
    # Held by the engine as long as its rows are: were it held here too, only the collector would free the two, and
    # with them the model that was asked.
    _owner: "weakref.ref[GenerationRequest] | None" = None

    @property
    def owner(self) -> "GenerationRequest | None":
        """The request it belongs to; None while it is proved that the pair answers."""
        return self._owner() if self._owner else None

    @owner.setter
    def owner(self, request: "GenerationRequest") -> None:
        self._owner = weakref.ref(request)

    def searches(self, end: int) -> list[Searching]:
        """Begin to look for its answers."""
        search = self.search
        tokens = self.length if self.attends else None
        frame = Frame(end, self.limit, search.length_power, tokens)
        if search.draw is not None:
            searches: list[Searching] = [
                Path(frame, self.told, search.draw, _generator(search.draw, self.number, sample))
                for sample in range(search.best)
            ]
        elif search.width > 1:
            searches = [Beam(frame, search.width, search.best)]
        else:
            searches = [Path(frame, self.told)]
        self._open = len(searches)
        return searches

    def found(self, answers: Sequence[Answer]) -> bool:
        """One of its searches is done; whether all are."""
        self._open -= 1
        self.answers = sorted([*self.answers, *answers], key=_merit, reverse=True)
        return not self._open


def note(record: RequestRecord, rows: Sequence[Row]) -> None:
    """How far the rows of a request came."""
    record.first_token_s = min((row.first_s for row in rows if row.first_s), default=None)
    answers = [answer for row in rows for answer in row.answers]
    record.steps = max(
        (len(answer.tokens) + answer.is_complete for answer in answers), default=None
    )


def _merit(answer: Answer) -> tuple[bool, float]:
    return answer.is_complete, answer.score


def _generator(draw: Draw, row: int, sample: int) -> np.random.Generator:
    """A stream of its own for each row and sample of a request, whatever else is served."""
    return np.random.Generator(np.random.PCG64([draw.seed, row, sample]))
