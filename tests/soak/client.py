"""A client process: sends requests at times fixed in advance, and writes the ledger.

    python -m tests.soak.client CONFIG

Open loop: the times are a seeded Poisson process, and a late answer delays no later request. A
good request that fails with UNAVAILABLE, with CANCELLED by gRPC core, or with RESOURCE_EXHAUSTED is
sent again until its deadline.

Threads: main paces and sends; gRPC's own thread records the ends of unary calls; one thread for
each open stream records its answers.
"""

import heapq
import itertools
import json
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np

from tests.soak import oracle
from tests.soak.bad_requests import BAD_REQUESTS, METHOD
from tests.soak.ledger import Ledger, Plan, Verdict, code_of, wire_id
from tests.soak.oracle import Question
from weir.protocol import inference_pb2 as pb

STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
RETRIED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""Statuses after which a good request is sent again."""
PLANNED_DEADLINE_S = {Plan.QUEUED: 0.03, Plan.BURST: 1.0, Plan.CANCEL: 5.0, Plan.BAD: 10.0}

_OK = 0
_UNKNOWN = 2
_LATE_S = 2.0
_STREAM_S = 10.0
_DETAILS = 200
_QUEUED_GROUP = 16
_TIGHT_S = (0.0005, 0.02)
_EXPIRED_S = 0.00001
_CANCEL_S = 0.015

_clock = time.monotonic


@dataclass(frozen=True, slots=True)
class Source:
    """Requests of one plan at a rate.

    Attributes:
        mix: shares of `(model, is_stream)`; None for the plan's own choice.
        windows_s: when it sends, in seconds from the start of the run.
    """

    plan: int
    rate_per_s: float
    windows_s: Sequence[tuple[float, float]]
    mix: Sequence[tuple[int, bool, float]] = ()


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client process is told.

    Attributes:
        start_s: start of the run on the monotonic clock.
        from_s: seconds from the start of the run before which it sends nothing.
        iterations: of the burner, for a good request and for one of an overload.
    """

    client: int
    incarnation: int
    target: str
    ledger: str
    complaints: str
    seed: int
    start_s: float
    from_s: float
    deadline_s: float
    iterations: tuple[int, int]
    sources: Sequence[Source]

    def write(self, path: Path) -> None:
        """Write it for the process."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "ClientConfig":
        """Read what `write` wrote."""
        values = json.loads(path.read_text())
        values["sources"] = [Source(**source) for source in values["sources"]]
        return cls(**values)


@dataclass(slots=True, eq=False)
class Attempt:
    """One call, or one request of a stream."""

    code: int
    plan: Plan
    question: Question | None
    sequence: int
    number: int
    intended_s: float
    end_s: float
    is_stream: bool
    case: int = 0


class Client:
    """Sends, records, and sends again."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._ledger = Ledger(Path(config.ledger))
        self._random = Random(f"{config.seed} {config.client} {config.incarnation}")
        self._channel = grpc.insecure_channel(
            config.target,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                # The least time for a connection to open, in spite of its name.
                ("grpc.min_reconnect_backoff_ms", 5000),
                ("grpc.max_reconnect_backoff_ms", 500),
                ("grpc.enable_retries", 0),
                ("grpc.max_send_message_length", -1),
            ],
        )
        self._unary: Any = self._channel.unary_unary(METHOD)
        self._stream: _Stream | None = None
        self._streams: list[_Stream] = []
        self._sequences = itertools.count()
        self._numbers = itertools.count()
        # What is due: (time, number, function); other threads put it, main runs it.
        # Not a SimpleQueue: its `get` may wait for ever if its timeout is a few microseconds.
        self._inbox: deque[tuple[float, Callable[[], None]]] = deque()
        self._wake = threading.Event()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._open: set[Attempt] = set()
        self._complaints = threading.Lock()

    def run(self) -> None:
        """Send everything, then wait until each attempt has ended or is lost."""
        config = self._config
        for at_s, source in arrivals(config):
            self._wait_until(config.start_s + at_s)
            self._send_first(config.sources[source], config.start_s + at_s)
        end_s = _clock() + max(config.deadline_s, *PLANNED_DEADLINE_S.values()) + _LATE_S
        while (self._open or self._due) and _clock() < end_s:
            self._wait_until(_clock() + 0.05)
        for attempt in list(self._open):
            self._end(attempt, _UNKNOWN, Verdict.LOST)
        for stream in self._streams:
            stream.close()
        self._channel.close()

    def _wait_until(self, until_s: float) -> None:
        """Run what falls due before a time."""
        while True:
            # Cleared first: what is put from here on wakes the wait.
            self._wake.clear()
            while self._inbox:
                self._later(*self._inbox.popleft())
            now = _clock()
            if self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
                continue
            if now >= until_s:
                return
            wake_s = min(until_s, self._due[0][0]) if self._due else until_s
            self._wake.wait(wake_s - now)

    def _later(self, at_s: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), function))

    def _send_first(self, source: Source, intended_s: float) -> None:
        plan = Plan(source.plan)
        if plan is Plan.QUEUED:
            for _ in range(_QUEUED_GROUP):
                self._send_new(plan, source, intended_s)
        else:
            self._send_new(plan, source, intended_s)

    def _send_new(self, plan: Plan, source: Source, intended_s: float) -> None:
        random, sequence = self._random, next(self._sequences)
        case, model, is_stream = 0, oracle.FINGERPRINT, False
        if plan is Plan.BAD:
            case = random.randrange(len(BAD_REQUESTS))
        elif plan in (Plan.QUEUED, Plan.BURST):
            model = oracle.BURNER
        else:
            weights = [weight for _, _, weight in source.mix]
            model, is_stream, _ = random.choices(source.mix, weights)[0]
        code = code_of(self._config.client, self._config.incarnation, sequence, 0)
        question = None if plan is Plan.BAD else self._question(model, plan, code)
        end_s = intended_s + self._deadline_s(plan)
        if plan is not Plan.GOOD:
            # A hostile client measures from when it sends: its deadlines are shorter than a pause.
            end_s += _clock() - intended_s
        attempt = Attempt(code, plan, question, sequence, 0, intended_s, end_s, is_stream, case)
        self._send(attempt)

    def _question(self, model: int, plan: Plan, code: int) -> Question:
        random = self._random
        if model == oracle.FINGERPRINT:
            return oracle.fingerprint(random, code)
        if model == oracle.LENGTHS:
            return oracle.lengths(random, code)
        if model == oracle.PAIR:
            return oracle.pair(random)
        good, heavy = self._config.iterations
        return oracle.burner(heavy if plan in (Plan.QUEUED, Plan.BURST) else good)

    def _deadline_s(self, plan: Plan) -> float:
        if plan is Plan.TIGHT:
            return self._random.uniform(*_TIGHT_S)
        if plan is Plan.EXPIRED:
            return _EXPIRED_S
        return PLANNED_DEADLINE_S.get(plan, self._config.deadline_s)

    def _send(self, attempt: Attempt) -> None:
        now = _clock()
        # Of a good request that is late itself, a little is left to say so.
        left_s = max(attempt.end_s - now, _EXPIRED_S)
        self._open.add(attempt)
        self._ledger.sent(
            attempt.code,
            model=oracle.FINGERPRINT if attempt.question is None else attempt.question.model,
            plan=attempt.plan,
            case=attempt.case,
            intended_s=attempt.intended_s,
            at_s=now,
            deadline_s=left_s,
        )
        if attempt.is_stream:
            self._send_on_stream(attempt, left_s)
            return
        call = self._start_unary(attempt, left_s)
        call.add_done_callback(lambda ended: self._unary_ended(attempt, ended))
        if attempt.plan is Plan.CANCEL:
            self._later(now + self._random.random() * _CANCEL_S, call.cancel)

    def _start_unary(self, attempt: Attempt, left_s: float) -> Any:
        # A retry waits for the connection: the server may be starting again.
        options: dict[str, Any] = {"timeout": left_s, "wait_for_ready": attempt.number > 0}
        name = wire_id(attempt.code)
        if attempt.question is not None:
            return self._unary.future(attempt.question.message(name), **options)
        bad = BAD_REQUESTS[attempt.case]
        if bad.is_compressed:
            options["compression"] = grpc.Compression.Gzip
        method: Any = self._channel.unary_unary(bad.method)
        return method.future(bad.message(name), **options)

    def _unary_ended(self, attempt: Attempt, call: Any) -> None:
        """On gRPC's thread."""
        code = call.code()
        if code is not grpc.StatusCode.OK:
            self._failed(attempt, code, call.details() or "", call.trailing_metadata() or ())
            return
        try:
            response = pb.ModelInferResponse.FromString(call.result())
        except Exception as error:  # noqa: BLE001 - whatever came is no answer
            self._complain(attempt, f"unreadable: {error}")
            self._end(attempt, _OK, Verdict.WRONG)
            return
        self._answered(attempt, response)

    def _answered(self, attempt: Attempt, response: pb.ModelInferResponse) -> None:
        wrong = _problem(attempt, response)
        if wrong:
            self._complain(attempt, wrong)
        version = int(response.model_version) if response.model_version.isdigit() else 0
        verdict = Verdict.WRONG if wrong else Verdict.RIGHT
        self._end(attempt, _OK, verdict, version)

    def _failed(
        self, attempt: Attempt, code: grpc.StatusCode, details: str, trailers: Sequence[Any] = ()
    ) -> None:
        now = _clock()
        self._end(attempt, code.value[0], Verdict.UNCHECKED)
        if attempt.plan is not Plan.GOOD:
            return
        self._complain(attempt, f"{code.name}: {details}")
        pushback = [value for key, value in trailers if key == "grpc-retry-pushback-ms"]
        pause_s = int(pushback[0]) / 1000 if pushback else 0.05 * 2 ** min(attempt.number, 5)
        retry_s = now + pause_s * (0.5 + self._random.random())
        if code in RETRIED and retry_s < attempt.end_s and attempt.number < 255:
            again = Attempt(
                attempt.code + 1,
                attempt.plan,
                attempt.question,
                attempt.sequence,
                attempt.number + 1,
                attempt.intended_s,
                attempt.end_s,
                attempt.is_stream,
            )
            self._inbox.append((retry_s, lambda: self._send(again)))
            self._wake.set()

    def _end(self, attempt: Attempt, status: int, verdict: Verdict, version: int = 0) -> None:
        self._ledger.ended(
            attempt.code, at_s=_clock(), status=status, verdict=verdict, version=version
        )
        self._open.discard(attempt)

    def _complain(self, attempt: Attempt, what: str) -> None:
        """Write what a person reads if the reconciliation finds something."""
        line = {"at_s": _clock(), "code": attempt.code, "what": what[:_DETAILS]}
        with self._complaints, Path(self._config.complaints).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _send_on_stream(self, attempt: Attempt, left_s: float) -> None:
        stream = self._stream
        if stream is None or not stream.takes_more():
            if stream is not None:
                stream.close()
            self._streams = [each for each in self._streams if not each.has_ended]
            method: Any = self._channel.stream_stream(STREAM_METHOD)
            stream = self._stream = _Stream(
                method, self._stream_answer, self._failed, self._stream_duplicate
            )
            self._streams.append(stream)
        stream.ask(attempt, left_s)

    def _stream_answer(self, attempt: Attempt, parts: Sequence[pb.ModelInferResponse]) -> None:
        self._answered(attempt, _joined(parts))

    def _stream_duplicate(self, code: int) -> None:
        self._ledger.ended(code, at_s=_clock(), status=_OK, verdict=Verdict.DUPLICATE)


class _Stream:
    """One `ModelStreamInfer`, and the requests on it that have not ended."""

    def __init__(
        self,
        method: Any,
        answered: Callable[[Attempt, Sequence[pb.ModelInferResponse]], None],
        failed: Callable[[Attempt, grpc.StatusCode, str], None],
        duplicate: Callable[[int], None],
    ) -> None:
        self._answered, self._failed, self._duplicate = answered, failed, duplicate
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Attempt, list[pb.ModelInferResponse]]] = {}
        self._old: dict[str, int] = {}
        self._until_s = _clock() + _STREAM_S
        self.has_ended = False
        self._is_closed = False
        self._call = method(self._sent(), wait_for_ready=True)
        threading.Thread(target=self._read, daemon=True).start()

    def takes_more(self) -> bool:
        """Whether it is open and young."""
        return not self.has_ended and _clock() < self._until_s

    def close(self) -> None:
        """Send no more; the answers are still read."""
        if not self._is_closed:
            self._is_closed = True
            self._requests.put(None)

    def ask(self, attempt: Attempt, left_s: float) -> None:
        """Send a request, with its deadline as a parameter."""
        name = wire_id(attempt.code)
        with self._lock:
            has_ended = self.has_ended
            self._open[name] = attempt, []
        if has_ended:
            self._fail_all(grpc.StatusCode.UNAVAILABLE, "the stream has ended")
            return
        assert attempt.question is not None
        self._requests.put(attempt.question.message(name, int(left_s * 1e6)))

    def _sent(self) -> Iterator[bytes]:
        while (message := self._requests.get()) is not None:
            yield message

    def _read(self) -> None:
        code, details = grpc.StatusCode.UNKNOWN, "the stream ended without an answer"
        try:
            for message in self._call:
                self._take(pb.ModelStreamInferResponse.FromString(message))
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        with self._lock:
            self.has_ended = True
        self._fail_all(code, details)

    def _fail_all(self, code: grpc.StatusCode, details: str) -> None:
        with self._lock:
            attempts, self._open = [attempt for attempt, _ in self._open.values()], {}
        for attempt in attempts:
            self._failed(attempt, code, details)

    def _take(self, response: pb.ModelStreamInferResponse) -> None:
        answer = response.infer_response
        is_final = answer.parameters["triton_final_response"].bool_param
        is_error = bool(response.error_message)
        with self._lock:
            found = self._open.get(answer.id)
            if found is None:
                old = self._old.get(answer.id)
            elif is_final or is_error:
                del self._open[answer.id]
                self._old[answer.id] = found[0].code
        if found is None:
            self._duplicate(0 if old is None else old)
            return
        attempt, parts = found
        if is_error:
            name = answer.parameters["grpc_status"].string_param
            code = grpc.StatusCode[name] if name else grpc.StatusCode.UNKNOWN
            self._failed(attempt, code, response.error_message)
            return
        parts.append(answer)
        if is_final:
            self._answered(attempt, parts)


def _problem(attempt: Attempt, response: pb.ModelInferResponse) -> str:
    if attempt.question is None:
        return f"{BAD_REQUESTS[attempt.case].name}: answered"
    if response.id != wire_id(attempt.code):
        return f"id: expected {wire_id(attempt.code)}, got {response.id}"
    try:
        return oracle.check_answer(attempt.question, response)
    except (ValueError, TypeError) as error:
        return f"unreadable: {error}"


def _joined(parts: Sequence[pb.ModelInferResponse]) -> pb.ModelInferResponse:
    """The answer of a stream as one: tokens come one by one."""
    whole = parts[-1]
    if len(parts) > 1:
        tokens = b"".join(oracle.outputs_of(part).get("output_tokens", b"") for part in parts)
        for number, output in enumerate(whole.outputs):
            if output.name == "output_tokens":
                whole.raw_output_contents[number] = tokens
    return whole


def arrivals(config: ClientConfig) -> list[tuple[float, int]]:
    """When each request is due, in seconds from the start of the run, with its source's number."""
    due = []
    for number, source in enumerate(config.sources):
        seed = [config.seed, config.client, config.incarnation, number]
        random = np.random.default_rng(seed)
        for start_s, end_s in source.windows_s:
            count = random.poisson(source.rate_per_s * (end_s - start_s))
            times = random.uniform(start_s, end_s, count)
            due += [(float(at_s), number) for at_s in times if at_s >= config.from_s]
    return sorted(due)


def main() -> None:
    """Run the client of a configuration."""
    Client(ClientConfig.read(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
