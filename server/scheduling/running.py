"""A batch from its cut to its answers, on the thread that cut it.

It is joined, run, split and answered. If the run of several requests fails, each gets a run of its own,
so that one bad request harms no other. A request that was given up meanwhile is not answered.

A run that gives another number of rows than went in shows that the first axis is not the batch axis. None of a batch's
answer is handed out then, its requests are run alone, and the model is not batched from then on.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from weir.server.errors import DeadlineExceeded
from weir.server.runtime import collate
from weir.server.runtime.collate import Tokens
from weir.server.runtime.padding import Padding
from weir.server.scheduling.batching import LastBatch
from weir.server.scheduling.places import Places
from weir.server.scheduling.request import InferRequest, refuse
from weir.server.telemetry.model_stats import BatchTimes
from weir.server.telemetry.request_record import BatchRecord

logger = logging.getLogger(__name__)

Array = NDArray[Any]

Run = Callable[[Mapping[str, Array]], dict[str, Array]]

Observer = Callable[[Sequence[InferRequest], BatchTimes, Tokens], None]
"""Counts a batch once it is answered; see `ModelStats.batch_ran`."""


class Runner:
    """Runs the batches of one model version.

    Args:
        name: of the model, for messages.
        run: computes every output of a batch.
        has_rows: whether the first axis of every tensor is that of the rows.
        has_fixed_rows: whether an answer must have as many rows as its request. Without, the answer to a request that
            ran alone is handed out whole.
        is_batched: whether requests may be put together.
        paddings: the axes along which they are filled up.
        places: where the requests are, those of the batch among the running.
        lock: on the places.
        observer: counts each batch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        has_rows: bool,
        has_fixed_rows: bool,
        is_batched: bool,
        paddings: Sequence[Padding],
        places: Places[InferRequest],
        lock: threading.Condition,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._run = run
        self._has_rows = has_rows
        self._has_fixed_rows = has_fixed_rows
        self.is_batched = is_batched
        self._paddings = paddings
        self._places = places
        self._lock = lock
        self._observer = observer
        self._clock = clock

    def process(self, batch: list[InferRequest]) -> LastBatch | None:
        """Run a batch and answer it; None if it failed."""
        cut_s = self._clock()
        noted = _note(batch, cut_s)
        inputs = [request.inputs for request in batch]
        try:
            joined = collate.join(inputs, self._paddings)
            run_s = self._clock()
            outputs = self._run(joined)
            ran_s = self._clock()
            if noted is not None:
                noted.run_s, noted.ran_s = run_s, ran_s
            parts = self._parts(outputs, inputs)
        except Exception as error:  # noqa: BLE001 - the one place where a run may fail
            if isinstance(error, collate.RowCountError):
                self._stop_batching(error)
            elif len(batch) > 1:
                logger.warning("batch failed, running its requests singly model=%s", self._name)
            self._retry_or_fail(batch, error)
            return None
        with self._lock:
            left_rows = self._places.waiting_rows
        with self._leaving(batch) as here:
            self._answer(batch, parts, here)
            times = BatchTimes(cut_s, run_s, ran_s, self._clock())
            self._observer(batch, times, collate.count_tokens(joined, self._paddings))
        rows = sum([request.rows for request in batch])
        return LastBatch(rows, ran_s - run_s, times.answered_s, left_rows)

    def _parts(
        self, outputs: dict[str, Array], inputs: Sequence[Mapping[str, Array]]
    ) -> list[dict[str, Array]]:
        """Each request's part of the outputs.

        Raises:
            RowCountError: the outputs cannot be cut into the requests' rows.
        """
        if not self._has_rows:
            return [outputs]
        if len(inputs) > 1 and not self.is_batched:
            # Another thread learnt it while this batch ran: that its count is right proves nothing.
            raise collate.RowCountError("the model is not batched any longer")
        if len(inputs) > 1 or self._has_fixed_rows:
            return collate.split(outputs, inputs, self._paddings)
        if self.is_batched:
            try:
                collate.check_rows(outputs, len(next(iter(inputs[0].values()))))
            except collate.RowCountError as error:
                self._stop_batching(error)
        return [outputs]

    def _stop_batching(self, error: collate.RowCountError) -> None:
        with self._lock:
            if not self.is_batched:
                return
            self.is_batched = False
            # Requests that wait for a batch to fill are due now.
            self._lock.notify_all()
        logger.warning("model is not batched from now on model=%s reason=%s", self._name, error)

    def _retry_or_fail(self, batch: list[InferRequest], error: Exception) -> None:
        """One bad request must not take its batch-mates down: each gets a run of its own."""
        if len(batch) == 1:
            with self._leaving(batch) as here:
                for request in here:
                    refuse(request, error)
            return
        for request in batch:
            if self._may_run(request):
                self.process([request])

    def _may_run(self, request: InferRequest) -> bool:
        """Whether a request of a failed batch is still waited for, and has time for another run."""
        with self._lock:
            if request not in self._places.running:
                return False
            is_late = request.deadline_s <= self._clock()
            if is_late:
                self._places.take(request)
        if is_late:
            refuse(request, DeadlineExceeded("the deadline passed before its run"))
        return not is_late

    def _answer(
        self, batch: list[InferRequest], parts: list[dict[str, Array]], here: set[InferRequest]
    ) -> None:
        for request, part in zip(batch, parts, strict=True):
            if request not in here:
                continue
            try:
                request.answer(part)
            except Exception as error:  # noqa: BLE001 - an answer that cannot be sent is that caller's alone
                refuse(request, error)

    @contextmanager
    def _leaving(self, batch: list[InferRequest]) -> Iterator[set[InferRequest]]:
        """Take requests out of the running, less those given up meanwhile, to be answered and counted."""
        places = self._places
        with self._lock:
            here = {request for request in batch if places.take(request)}
            places.answering += len(here)
        try:
            yield here
        finally:
            with self._lock:
                places.answering -= len(here)


def _note(batch: Sequence[InferRequest], cut_s: float) -> BatchRecord | None:
    """Tell those of a batch that are followed what they share; None if none is."""
    records = [request.record for request in batch if request.record is not None]
    if not records:
        return None
    noted = BatchRecord(sum(request.rows for request in batch), cut_s)
    for record in records:
        record.batch = noted
    return noted
