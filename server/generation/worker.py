"""What an engine's thread does with the requests it is given: encode, step, answer.

Rules:
- A request that cannot be encoded, told of a token, or answered fails alone.
- A step that fails takes all who are here: every row was looked at before it was queued, so none is to blame, and none
  can go on. Should the graph say that it is the values, nobody knows whose: only a request that is alone is told so.
- Whoever is refused or gone has left its slots before the next step.
- An answer is sent just before the next run, or at once where there is none. A run lets go of Python's lock, so the
  transport's thread, which an answer wakes, works meanwhile; sent earlier, the two threads would wait for each other.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from weir.server.errors import InvalidRequest, ServerError
from weir.server.generation.decoder_batch import Generation
from weir.server.generation.metrics import GenerationStats
from weir.server.generation.row import GenerationRequest, Row
from weir.server.scheduling.request import refuse
from weir.server.telemetry.request_record import BatchRecord

logger = logging.getLogger(__name__)


class StepRefused(ServerError):
    """The values of a step are none for the graph, and any of several requests may be to blame."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done next.

    Attributes:
        gone: requests that were answered by others while their rows were here, and why.
        encoded: requests to be encoded.
    """

    gone: Mapping[GenerationRequest, str]
    encoded: Sequence[GenerationRequest]


class Worker:
    """The requests whose rows are encoded or decoded.

    Args:
        generation: the rows, and the graphs behind them.
        leaving: takes a request out of its place, to be answered meanwhile; False if it was gone already.
        stats: counts.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        generation: Generation,
        *,
        leaving: Callable[[GenerationRequest], AbstractContextManager[bool]],
        stats: GenerationStats,
        clock: Callable[[], float],
    ) -> None:
        self._generation = generation
        self._leaving = leaving
        self._stats = stats
        self._clock = clock
        # How many rows of a request have not ended.
        self._open: dict[GenerationRequest, int] = {}
        # All of whose rows have ended, to be answered before the next run.
        self._ended: list[GenerationRequest] = []

    @property
    def wants_requests(self) -> bool:
        """Whether there is room for more."""
        return self._generation.wants_rows

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to step."""
        return self._generation.is_busy

    def process(self, turn: Turn) -> None:
        """Do all of a turn, and one step."""
        try:
            self._process(turn)
        except Exception as error:  # our bug: those here are lost, the thread must not be
            logger.exception("step lost model=%s", self._stats.model.model)
            self._give_up(error)
        self._stats.hold(self._generation.used_slots)

    def _process(self, turn: Turn) -> None:
        for request in turn.encoded:
            self._open[request] = len(request.sources)
        for request, reason in turn.gone.items():
            self._drop(request, reason)
        if turn.encoded:
            self._answer_ended()
            self._encode(turn.encoded)
        if self._generation.is_busy:
            joined = self._generation.join()
            self._answer_ended()
            self._step(joined)
        if not self._generation.is_busy:
            self._answer_ended()

    def _encode(self, requests: Sequence[GenerationRequest]) -> None:
        """Encode some requests together, or one by one if that fails: a bad one harms no other."""
        rows = [row for request in requests for row in request.sources]
        started_s = self._clock()
        try:
            tokens = self._generation.encode(rows)
        except Exception as error:  # noqa: BLE001 - the one place where an encoding may fail
            if len(requests) == 1:
                self._fail(requests[0], error)
                return
            for request in requests:
                self._encode([request])
            return
        queued_s = [started_s - request.queued_s for request in requests]
        ended_s = self._clock()
        self._stats.encoded(queued_s, ended_s - started_s, tokens)
        if any(request.record is not None for request in requests):
            _note(requests, BatchRecord(len(rows), started_s, run_s=started_s, ran_s=ended_s))

    def _step(self, joined: Sequence[Row]) -> None:
        started_s = self._clock()
        try:
            stepped = self._generation.step()
        except InvalidRequest as error:
            self._give_up(error if len(self._open) == 1 else StepRefused(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - the one place where a step may fail
            self._give_up(error)
            return
        now = self._clock()
        for row in joined:
            row.first_s = now
        self._stats.stepped(stepped, joined, now - started_s, now)
        for row in stepped.ended:
            if row.owner is not None:
                self._end(row.owner)
        for row, why in stepped.failed.items():
            if row.owner is not None:
                self._fail(row.owner, why)

    def _end(self, request: GenerationRequest) -> None:
        """One more row of a request has ended."""
        self._open[request] -= 1
        if not self._open[request]:
            del self._open[request]
            self._ended.append(request)

    def _answer_ended(self) -> None:
        ended, self._ended = self._ended, []
        for request in ended:
            with self._leaving(request) as is_ours:
                if is_ours:
                    self._answer(request)

    def _answer(self, request: GenerationRequest) -> None:
        try:
            request.answer()
            if request.is_answered:
                self._stats.answered(request, self._clock() - request.arrived_s)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be sent is that caller's alone
            refuse(request, error)

    def _give_up(self, error: Exception) -> None:
        self._answer_ended()
        for request in list(self._open):
            self._fail(request, error)

    def _fail(self, request: GenerationRequest, error: Exception) -> None:
        self._drop(request, "failed")
        with self._leaving(request) as is_ours:
            if is_ours:
                refuse(request, error)

    def _drop(self, request: GenerationRequest, reason: str) -> None:
        """Forget the rows of a request that have not ended."""
        self._generation.drop(request)
        self._stats.dropped(reason, self._open.pop(request, 0))


def _note(requests: Sequence[GenerationRequest], batch: BatchRecord) -> None:
    """Tell those that are followed what they were encoded with."""
    for request in requests:
        if request.record is not None:
            request.record.batch = batch
