"""Engine of one encoder-decoder: a bounded queue, and the threads that encode, step and answer.

Threads: `weir-generate-<model>` owns the batch: it steps and answers. `weir-encode-<model>` runs
the encoder for it while rows are stepped; without rows to step, the owner runs it itself. The
transport's threads submit and cancel, `weir-deadlines` expires. They meet in the queue, under one
lock that is held to move references and never while a graph runs.

Rules:
- A request is in one place: waiting, running (encoded or being decoded), or gone. The thread that
  takes it out of its place answers it, so it is answered once. A request that is cancelled or
  expires while it runs leaves its slots before the next step.
- A request is refused when it arrives if it cannot be done by its deadline (`DecodeTime`). It is
  left out when its rows would be encoded, or get slots, if it cannot be done any more and others
  can use the slots. An idle engine takes any request: only rows that are decoded correct the
  estimate.
- A request that cannot be encoded, or whose answer cannot be sent, fails alone.
- At most one run of the encoder is under way. Its requests are running; one that leaves meanwhile
  is dropped when the run ends.
- If a decoder step fails, every request in the batch fails: all were checked before they were
  queued, so none is known to be the cause. Only a request that is alone is reported as invalid.
- An answer is sent just before the next run, or at once if there is none. A run releases the GIL,
  so the transport's thread, which an answer wakes, works meanwhile. Sent earlier, the two threads
  would wait for each other.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

from weir.server.errors import DeadlineExceeded, InvalidRequest, Overloaded, ServerError
from weir.server.generation.decode_time import DecodeTime, Demand, SlotsAhead
from weir.server.generation.decoder_batch import DecoderBatch, EncodedRows, Row
from weir.server.generation.request import GenerationRequest
from weir.server.runtime import cpu_priority
from weir.server.scheduling import batching
from weir.server.scheduling.batching import BATCHED_BY_CONTRACT, BatchPolicy
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.deadline_order import FAIR_CUTS
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Load, refuse
from weir.server.scheduling.request_queue import RequestQueue
from weir.server.scheduling.service_time import USABLE_SHARE
from weir.server.telemetry.model_stats import GenerationStats
from weir.server.telemetry.request_record import BatchRecord
from weir.server.threads import SupervisedThread
from weir.server.transport.status import closed_error
from weir.server.transport.wakeups import Wakeups

logger = logging.getLogger(__name__)


class DecoderStepFailed(ServerError):
    """A step's values are invalid for the graph, and several requests may be the cause."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    """Requests whose rows were encoded together, or one request and why it could not be."""

    requests: Sequence[GenerationRequest]
    encoded: EncodedRows | Exception


@dataclass(frozen=True, slots=True)
class _Work:
    """One turn of `weir-generate`.

    Attributes:
        left: requests that left while they ran, and why.
        to_encode: requests that this thread encodes, as no row can be stepped.
        is_last: whether no other request waits in the queue.
    """

    left: Mapping[GenerationRequest, str]
    encoded: Sequence[_Encoding]
    to_encode: Sequence[GenerationRequest]
    is_last: bool

    @property
    def requests(self) -> list[GenerationRequest]:
        """The requests that this turn makes ready."""
        return [*self.to_encode, *(one for each in self.encoded for one in each.requests)]


class Engine:
    """Queue and threads of one encoder-decoder.

    Args:
        is_on_cpu: whether its runs take the time of cores, and short ones of other models go first.
    """

    decision = BATCHED_BY_CONTRACT

    def __init__(
        self,
        name: str,
        batch: DecoderBatch,
        *,
        policy: BatchPolicy,
        max_queue_rows: int,
        deadlines: Deadlines,
        stats: GenerationStats,
        is_on_cpu: bool = True,
        wakeups: Wakeups | None = None,
        budget: ByteBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self.budget = budget or ByteBudget(name)
        self._deadlines = deadlines
        self._stats = stats
        self._is_on_cpu = is_on_cpu
        self._wakeups = wakeups or Wakeups()
        self._clock = clock
        self._queue: RequestQueue[Sequence[Row]] = RequestQueue(name, max_queue_rows)
        self._condition = self._queue.condition
        # Requests that left while they ran, and why; their rows are still in the batch.
        self._left: dict[GenerationRequest, str] = {}
        # Under the lock: whether `weir-encode` has requests, and what it has encoded of them.
        self._is_encoding = False
        self._encoded: list[_Encoding] = []
        # At most one entry, and None once the engine is closed.
        self._to_encode: SimpleQueue[Sequence[GenerationRequest] | None] = SimpleQueue()
        self._threads = [
            SupervisedThread(target=self._work, name=f"weir-generate-{name}", daemon=True),
            SupervisedThread(target=self._run_encoder, name=f"weir-encode-{name}", daemon=True),
        ]
        # Replaced in each turn: the slots that are in use, or will be before those of any request
        # that waits.
        self._ahead = SlotsAhead()
        self._time = DecodeTime(policy.max_rows)
        # Used by `weir-generate` alone: the rows' requests, how many rows of each request are not
        # done, requests that `weir-encode` has (with the reason, if they left), and requests that
        # are done, to be answered before the next run.
        self._batch = batch
        self._request_of: dict[Row, GenerationRequest] = {}
        self._open_rows: dict[GenerationRequest, int] = {}
        self._handed_over: dict[GenerationRequest, str | None] = {}
        self._done: list[GenerationRequest] = []
        # How many times requests were selected; how many steps there were, and when the last one
        # ended, unless the batch has been empty since.
        self._selections = 0
        self._steps = 0
        self._stepped_s: float | None = None

    def start(self) -> None:
        """Start the threads."""
        self._deadlines.watch(self)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Refuse new requests; the threads end once all queued requests are answered."""
        self._queue.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads of a closed engine; True if they ended in time."""
        end_s = self._clock() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - self._clock()))
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended:
            self._deadlines.forget(self)
        return ended

    def load(self) -> Load:
        """Waiting and running requests."""
        with self._condition:
            waiting = self._queue.waiting
            ahead = replace(self._ahead, rows=waiting.rows, tokens=waiting.work)
            return self._queue.load_with(self._time.typical_s(ahead))

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; see `ReadyRequest.submit`."""
        with self._condition:
            self._check_time(request)
            self._queue.put(request)
            self._condition.notify()
        self._deadlines.expect(request.deadline_s)

    def cancel(self, request: GenerationRequest) -> None:
        """Remove a request whose caller is gone; its rows leave before the next step."""
        error = closed_error(request.arrived_s, request.deadline_s, self._clock())
        reason = "deadline" if isinstance(error, DeadlineExceeded) else "cancelled"
        with self._condition:
            is_ours = self._take(request, reason)
        if is_ours:
            refuse(request, error)

    def expire(self, now: float) -> float:
        """Fail every request that is late; returns the earliest deadline left, or infinity."""
        with self._condition:
            late, earliest = self._queue.late(now)
            for request in late:
                self._take(request, "deadline")
        for request in late:
            refuse(request, DeadlineExceeded("the request's time is over"))
        return earliest

    def _check_time(self, request: GenerationRequest) -> None:
        """Refuse a request that cannot be done by its deadline; under the lock."""
        queue = self._queue
        left_s = request.deadline_s - self._clock()
        is_idle = not (queue.waiting or queue.running)
        if is_idle or queue.is_closed or left_s <= 0 or not self._time.is_known:
            return
        answered_s = self._answer_s(request)
        if answered_s > USABLE_SHARE * left_s:
            raise Overloaded(
                f"model {queue.name!r}: {queue.waiting.rows} rows wait, an answer is expected in "
                f"{answered_s:.3g} s, the request has {left_s:.3g} s",
                answered_s - USABLE_SHARE * left_s,
            )

    def _answer_s(self, request: GenerationRequest) -> float:
        """Seconds until the answer of a request that is queued now; under the lock."""
        rows, tokens = self._queue.waiting.ahead(request)
        ahead = replace(self._ahead, rows=rows, tokens=tokens)
        return self._time.answer_s(Demand.of(request.inputs), ahead)

    def _take(self, request: GenerationRequest, reason: str) -> bool:
        """Remove a request from its place, under the lock; the thread drops its rows."""
        was_running = request in self._queue.running
        if not self._queue.take(request):
            return False
        if was_running:
            self._left[request] = reason
            self._condition.notify()
        return True

    def _work(self) -> None:
        # An answer takes dozens of steps without a pause: together they are a long run.
        if self._is_on_cpu:
            cpu_priority.lower()
        while (work := self._next()) is not None:
            try:
                self._process(work)
            except Exception as error:  # our bug: the thread goes on with the next requests
                logger.exception("decoder batch lost model=%s", self._stats.model.model)
                self._fail_all(error, work.requests)
            self._stats.set_active_rows(self._batch.used_slots)
        self._to_encode.put(None)

    def _run_encoder(self) -> None:
        """Encode requests for the batch while its rows are stepped."""
        if self._is_on_cpu:
            cpu_priority.lower()
        for requests in iter(self._to_encode.get, None):
            try:
                encoded = self._encode(requests)
            except Exception as error:  # our bug: the thread goes on with the next requests
                logger.exception("encoding lost model=%s", self._stats.model.model)
                encoded = [_Encoding([request], error) for request in requests]
            with self._condition:
                self._encoded += encoded
                self._is_encoding = False
                self._condition.notify()

    def _next(self) -> _Work | None:
        """Wait for requests to encode, encoded or left, or for a step; None once closed."""
        selected: list[GenerationRequest] = []
        refused: list[tuple[GenerationRequest, ServerError]] = []
        with self._condition:
            queue = self._queue
            while not (
                self._left
                or self._encoded
                or self._batch.is_busy
                or (queue.waiting and not self._is_encoding)
            ):
                if queue.is_closed and not self._is_encoding:
                    return None
                self._condition.wait()
            left, self._left = self._left, {}
            encoded, self._encoded = self._encoded, []
            if self._batch.wants_rows and not self._is_encoding:
                selected, refused = self._select(self._clock())
            queue.running.update(selected)
            is_handed_over = bool(selected) and (self._batch.is_busy or bool(encoded))
            self._is_encoding = self._is_encoding or is_handed_over
            if is_handed_over:
                self._handed_over.update(dict.fromkeys(selected))
            self._ahead = self._slots_ahead([] if is_handed_over else selected)
            is_last = not queue.waiting
        if is_handed_over:
            self._to_encode.put(selected)
        for request, error in refused:
            refuse(request, error)
        return _Work(left, encoded, [] if is_handed_over else selected, is_last)

    def _select(
        self, now: float
    ) -> tuple[list[GenerationRequest], list[tuple[GenerationRequest, ServerError]]]:
        """Take the requests to encode next out of the queue, and those that are left out."""
        waiting, refused = self._queue.waiting, []
        self._selections += 1
        while True:
            is_fair = not self._selections % FAIR_CUTS
            candidates = waiting.by_arrival() if is_fair else iter(waiting)
            selected = batching.select(candidates, self._policy)
            late = [request for request in selected if self._is_late(request, now)]
            if not late:
                break
            for request in late:
                waiting.remove(request)
                refused.append((request, self._late_error(request, now)))
        for request in selected:
            waiting.remove(request)
        return selected, refused

    def _is_late(self, request: GenerationRequest, now: float) -> bool:
        """Whether a request cannot be done any more, though its next rows get slots at once."""
        if request.deadline_s <= now:
            return True
        if not (self._open_rows or self._handed_over):
            return False
        demand = Demand.of([row for row in request.inputs if not row.first_step_s])
        return now + self._time.rest_s(demand, self._batch.used_slots) > request.deadline_s

    def _late_error(self, request: GenerationRequest, now: float) -> ServerError:
        if request.deadline_s <= now:
            return DeadlineExceeded("the deadline passed in the queue")
        return Overloaded(
            f"model {self._queue.name!r}: the request cannot be done by its deadline, in "
            f"{request.deadline_s - now:.3g} s",
            self._answer_s(request),
        )

    def _slots_ahead(self, selected: Sequence[GenerationRequest]) -> SlotsAhead:
        requests = (*self._handed_over, *selected)
        encoded = sum([row.search.slots for request in requests for row in request.inputs])
        return SlotsAhead(self._batch.used_slots, encoded + self._batch.ready_slots)

    def _process(self, work: _Work) -> None:
        """Drop the rows that left, encode requests, run one step, and answer what is done."""
        for request, reason in work.left.items():
            if request in self._handed_over:
                self._handed_over[request] = reason
            else:
                self._drop(request, reason)
        for encoding in work.encoded:
            self._add(encoding)
        if work.to_encode:
            self._answer_done()
            for encoding in self._encode(work.to_encode):
                self._add(encoding)
        if self._batch.is_busy:
            self._leave_out(is_last=work.is_last)
            joined = self._batch.join()
            self._answer_done()
            self._step(joined)
        if not self._batch.is_busy:
            self._stepped_s = None
            self._answer_done()

    def _encode(self, requests: Sequence[GenerationRequest]) -> list[_Encoding]:
        """Encode requests together; if that fails, each alone, so that a bad one harms no other."""
        rows = [row for request in requests for row in request.inputs]
        started_s = self._clock()
        try:
            encoded = self._batch.encode(rows)
        except Exception as error:  # noqa: BLE001 - the one place where an encoding may fail
            if len(requests) == 1:
                return [_Encoding(requests, error)]
            return [encoding for request in requests for encoding in self._encode([request])]
        queued_s = [started_s - request.queued_s for request in requests]
        ended_s = self._clock()
        self._stats.encoded(queued_s, ended_s - started_s, encoded.tokens)
        self._time.encoded(sum([row.length for row in rows]), ended_s - started_s)
        records = [request.record for request in requests if request.record is not None]
        if records:
            batch = BatchRecord(len(rows), started_s, run_s=started_s, ran_s=ended_s)
            for record in records:
                record.batch = batch
        return [_Encoding(requests, encoded)]

    def _add(self, encoding: _Encoding) -> None:
        """Make encoded rows ready, except for requests that left; or fail the request."""
        for request in encoding.requests:
            self._open_rows[request] = len(request.inputs)
            self._request_of.update((row, request) for row in request.inputs)
        if isinstance(encoding.encoded, Exception):
            (request,) = encoding.requests
            reason = self._handed_over.pop(request, None)
            self._fail(request, encoding.encoded, reason or "failed")
            return
        self._batch.add(encoding.encoded)
        for request in encoding.requests:
            reason = self._handed_over.pop(request, None)
            if reason is not None:
                self._drop(request, reason)

    def _leave_out(self, *, is_last: bool) -> None:
        """Refuse the requests whose rows are next to get slots, and that cannot be done in time."""
        now = self._clock()
        # One by one: the last request runs in any case.
        while len(self._open_rows) + len(self._handed_over) > 1 or not is_last:
            requests = dict.fromkeys(self._request_of[row] for row in self._batch.joining)
            late = next((request for request in requests if self._is_late(request, now)), None)
            if late is None:
                return
            with self._condition:
                error = self._late_error(late, now)
            self._fail(late, error, "deadline")

    def _step(self, joined: Sequence[Row]) -> None:
        started_s = self._clock()
        try:
            result = self._batch.step()
        except Exception as error:  # noqa: BLE001 - the one place where a step may fail
            is_ambiguous = isinstance(error, InvalidRequest) and len(self._open_rows) > 1
            self._fail_all(DecoderStepFailed(str(error)) if is_ambiguous else error)
            return
        now = self._clock()
        self._stats.stepped(result.slots, now - started_s)
        self._time.turned(
            result.slots, now - (started_s if self._stepped_s is None else self._stepped_s)
        )
        self._stepped_s = now
        self._steps += 1
        for row in joined:
            row.first_step, row.first_step_s = self._steps, now
            self._stats.row_started(now - row.arrived_s)
        for row in result.ended:
            self._row_done(row, now)
        for row, failure in result.failed.items():
            # The failure of another row may have removed the request already.
            if row in self._request_of:
                self._fail(self._request_of[row], failure)

    def _row_done(self, row: Row, now: float) -> None:
        is_complete = row.hypotheses[0].is_complete
        self._stats.row_finished(
            is_complete=is_complete,
            tokens=sum(len(each.tokens) for each in row.hypotheses),
            steps=max(each.steps for each in row.hypotheses),
            decode_s=now - row.first_step_s,
        )
        # A beam search goes on after its best hypothesis has ended.
        self._time.row_done(row, 1 + self._steps - row.first_step, is_complete=is_complete)
        request = self._request_of.pop(row)
        self._open_rows[request] -= 1
        if not self._open_rows[request]:
            del self._open_rows[request]
            self._done.append(request)

    def _answer_done(self) -> None:
        if not self._done:
            return
        done, self._done = self._done, []
        with self._wakeups.corked():
            for request in done:
                with self._queue.leaving([request]) as taken:
                    if taken:
                        self._answer(request)

    def _answer(self, request: GenerationRequest) -> None:
        try:
            request.answer(request.inputs)
            if request.is_answered:
                self._stats.answered(
                    self._clock() - request.arrived_s,
                    rows=request.rows,
                    request_bytes=request.request_bytes,
                    response_bytes=request.response_bytes,
                )
        except Exception as error:  # noqa: BLE001 - an unsendable answer fails its request alone
            refuse(request, error)

    def _fail_all(self, error: Exception, others: Iterable[GenerationRequest] = ()) -> None:
        """Fail every request in the batch, and others that were to join it."""
        self._answer_done()
        for request in dict.fromkeys((*self._open_rows, *others)):
            self._handed_over.pop(request, None)
            self._fail(request, error)

    def _fail(self, request: GenerationRequest, error: Exception, reason: str = "failed") -> None:
        self._drop(request, reason)
        with self._queue.leaving([request]) as taken:
            if taken:
                refuse(request, error)

    def _drop(self, request: GenerationRequest, reason: str) -> None:
        """Remove the rows of a request that are not done."""
        self._batch.drop(request.inputs)
        for row in request.inputs:
            self._request_of.pop(row, None)
        self._stats.dropped(reason, self._open_rows.pop(request, 0))
