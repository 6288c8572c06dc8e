"""Statistics of a model version, and the Prometheus metrics made of them.

The request path adds to plain numbers under one lock, once per batch or decoder step where
possible.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from weir.server.runtime.collate import Tokens
from weir.server.telemetry.metric_family import MODEL, Family, Readers
from weir.server.transport.call_stats import ROWS, SECONDS, Histogram


@dataclass(frozen=True, slots=True)
class ModelGauges:
    """The state of a model at a scrape.

    Attributes:
        queue_limit_rows: None while it is not loaded.
        is_batched: whether requests share batches; None while it is not loaded.
        batched_by: what decided that.
        inflight_limit_bytes: None while it is not loaded, and without a limit.
        expected_s: until the answer of a row that arrives now; None before the first run.
    """

    model: str
    version: str
    is_ready: bool
    waiting_requests: int
    waiting_rows: int
    running_requests: int
    queue_limit_rows: int | None
    is_batched: bool | None = None
    batched_by: str = ""
    inflight_bytes: int = 0
    inflight_limit_bytes: int | None = None
    expected_s: float | None = None


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Times of a batch, in seconds on the scheduler's clock."""

    cut_s: float
    run_s: float
    ran_s: float
    answered_s: float


class CountedRequest(Protocol):
    """The part of a request that its batch adds to the model's numbers."""

    rows: int
    arrived_s: float
    queued_s: float
    is_answered: bool
    request_bytes: int
    response_bytes: int


@dataclass(slots=True)
class Duration:
    """The number of events and their total duration."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Add `count` events whose durations sum to `seconds`."""
        self.count += count
        self.seconds += seconds


@dataclass(slots=True)
class BatchSizeStatistics:
    """Durations of the batches of one size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


class ModelStats:
    """Statistics of one model version; `lock` guards every field."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.labels = (model, version)
        self.lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rows = 0
        self.batches = 0
        self.tokens = 0
        self.padded_tokens = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.request_seconds, self.queue_seconds = Histogram(SECONDS), Histogram(SECONDS)
        self.preprocess_seconds, self.compute_seconds = Histogram(SECONDS), Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.success, self.failure, self.queue = Duration(), Duration(), Duration()
        self.by_batch_size: dict[int, BatchSizeStatistics] = {}
        # Durations of all batches, each multiplied by the number of its requests.
        self.requests_input_s = self.requests_infer_s = self.requests_output_s = 0.0
        self.last_inference_epoch_s = 0.0
        self.load_seconds = 0.0
        self.provider = ""
        self.threads = self.instances = 0

    def request_failed(
        self, status: str, reason: str, seconds: float, request_bytes: int, response_bytes: int = 0
    ) -> None:
        """Count a failed request `seconds` after its arrival; `response_bytes`: partial answers."""
        with self.lock:
            self.statuses[status] += 1
            self.reasons[reason] += 1
            self.request_bytes += request_bytes
            self.response_bytes += response_bytes
            # Not in the latency histogram: fast rejections would hide slow answers.
            self.failure.add(seconds)

    def request_preprocessed(self, seconds: float) -> None:
        """Count an image that was preprocessed."""
        with self.lock:
            self.preprocess_seconds.add(seconds)

    def batch_ran(
        self, requests: Sequence[CountedRequest], times: BatchTimes, tokens: Tokens
    ) -> None:
        """Count a batch that ran. A request may have failed while it ran."""
        rows = sum([request.rows for request in requests])
        answered = [request for request in requests if request.is_answered]
        count = len(answered)
        total_s = [times.answered_s - request.arrived_s for request in answered]
        queue_s = [times.cut_s - request.queued_s for request in answered]
        request_bytes = sum([request.request_bytes for request in answered])
        response_bytes = sum([request.response_bytes for request in answered])
        input_s, infer_s = times.run_s - times.cut_s, times.ran_s - times.run_s
        output_s = times.answered_s - times.ran_s
        epoch_s = time.time()
        with self.lock:
            for value in total_s:
                self.request_seconds.add(value)
            for value in queue_s:
                self.queue_seconds.add(value)
            self.compute_seconds.add(infer_s)
            self.batch_rows.add(rows)
            self.statuses["OK"] += count
            self.success.add(sum(total_s), count)
            self.queue.add(sum(queue_s), count)
            self.rows += rows
            self.tokens += tokens.real
            self.padded_tokens += tokens.computed
            self.batches += 1
            self.request_bytes += request_bytes
            self.response_bytes += response_bytes
            self.last_inference_epoch_s = epoch_s
            size = self.by_batch_size.setdefault(rows, BatchSizeStatistics())
            size.compute_input.add(input_s)
            size.compute_infer.add(infer_s)
            size.compute_output.add(output_s)
            self.requests_input_s += input_s * count
            self.requests_infer_s += infer_s * count
            self.requests_output_s += output_s * count


class GenerationStats:
    """Statistics of one encoder-decoder beside those of any model, whose lock guards them too."""

    def __init__(self, model: ModelStats) -> None:
        self.model = model
        self.first_token = Histogram(SECONDS)
        self.token = Histogram(SECONDS)
        self.steps = 0
        self.tokens = 0
        self.finished: Counter[str] = Counter()
        self.active_rows = 0

    def encoded(self, queued_s: Sequence[float], seconds: float, tokens: Tokens) -> None:
        """Count a run of the encoder: the queue time of each request, and the sources' tokens."""
        model = self.model
        with model.lock:
            for value in queued_s:
                model.queue_seconds.add(value)
            model.queue.add(sum(queued_s), len(queued_s))
            model.compute_seconds.add(seconds)
            model.tokens += tokens.real
            model.padded_tokens += tokens.computed

    def stepped(self, slots: int, seconds: float) -> None:
        """Count a step of the decoder, with the number of slots in use and its duration."""
        model = self.model
        with model.lock:
            self.steps += 1
            model.batches += 1
            model.compute_seconds.add(seconds)
            model.batch_rows.add(slots)
            model.by_batch_size.setdefault(slots, BatchSizeStatistics()).compute_infer.add(seconds)
            model.requests_infer_s += slots * seconds

    def row_started(self, seconds: float) -> None:
        """Count a row's first step; `seconds` since its request arrived."""
        with self.model.lock:
            self.first_token.add(seconds)

    def row_finished(self, *, is_complete: bool, tokens: int, steps: int, decode_s: float) -> None:
        """Count a row whose search is done.

        Args:
            is_complete: whether its best hypothesis ends with the end token.
            tokens: of all its hypotheses.
            steps: of its longest hypothesis.
            decode_s: from its first step to its last.
        """
        with self.model.lock:
            self.finished["end" if is_complete else "limit"] += 1
            self.tokens += tokens
            if steps > 1:
                self.token.add(decode_s / (steps - 1))

    def answered(
        self, seconds: float, *, rows: int, request_bytes: int, response_bytes: int
    ) -> None:
        """Count an answered request; `seconds` since its arrival."""
        model = self.model
        with model.lock:
            model.rows += rows
            model.request_bytes += request_bytes
            model.response_bytes += response_bytes
            model.statuses["OK"] += 1
            model.success.add(seconds)
            model.request_seconds.add(seconds)
            model.last_inference_epoch_s = time.time()

    def dropped(self, reason: str, rows: int) -> None:
        """Count rows that left before they were done."""
        with self.model.lock:
            self.finished[reason] += rows

    def set_active_rows(self, rows: int) -> None:
        """Set the number of slots in use."""
        with self.model.lock:
            self.active_rows = rows


# Series that exist at 0 from the start; a series that begins with a burst has no increase.
_INITIAL_STATUSES = (
    "OK", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED",
)  # fmt: skip

# Also of requests whose model was not found.
REQUESTS: Readers[ModelStats] = {
    Family(
        "weir_requests_total", "counter", (*MODEL, "status"), "requests",
        "Finished requests by gRPC status. Model and version are empty if no model was found.",
        "more traffic for OK, and more failures of that kind for any other status.",
    ): lambda stats: (
        dict.fromkeys(_INITIAL_STATUSES, 0) | stats.statuses if stats.model else stats.statuses
    ),
    Family(
        "weir_request_failures_total", "counter", (*MODEL, "reason"), "requests",
        "Requests that ended with a status other than OK, by reason. "
        "A reason is finer than a status.",
        "more failures of that kind. For `internal`, the log has an error id.",
    ): lambda stats: stats.reasons,
    Family(
        "weir_request_bytes_total", "counter", MODEL, "bytes",
        "Size of the request messages, with those of failed requests.",
        "more or larger requests.",
    ): lambda stats: stats.request_bytes or (0 if stats.model else None),
}  # fmt: skip
ANSWERS: Readers[ModelStats] = {
    Family(
        "weir_response_bytes_total", "counter", MODEL, "bytes",
        "Size of the response messages.",
        "more or larger responses.",
    ): lambda stats: stats.response_bytes,
    Family(
        "weir_request_seconds", "histogram", MODEL, "seconds",
        "Latency of successful requests: from arrival to answer.",
        "slower answers. The queue time and the compute time show the cause.",
    ): lambda stats: stats.request_seconds,
    Family(
        "weir_queue_seconds", "histogram", MODEL, "seconds",
        "Time in the queue, until the request's batch is cut. "
        "For images and texts it starts after preprocessing.",
        "more load than the model's sessions can compute.",
    ): lambda stats: stats.queue_seconds,
    Family(
        "weir_preprocess_seconds", "histogram", MODEL, "seconds",
        "Time to decode and resize one image.", "larger images, or a slower machine.",
    ): lambda stats: stats.preprocess_seconds,
}  # fmt: skip
BATCHES: Readers[ModelStats] = {
    Family(
        "weir_rows_total", "counter", MODEL, "rows", "Computed rows.", "more work."
    ): lambda stats: stats.rows,
    Family(
        "weir_batches_total", "counter", MODEL, "batches", "Runs of the model.",
        "more work. If it rises faster than the rows, batches get smaller.",
    ): lambda stats: stats.batches,
    Family(
        "weir_batch_rows", "histogram", MODEL, "rows",
        "Batch size.", "more load, or clients that send more rows per request.",
    ): lambda stats: stats.batch_rows,
    Family(
        "weir_compute_seconds", "histogram", MODEL, "seconds",
        "Time of one run of the model on a batch.", "larger batches, or a slower machine.",
    ): lambda stats: stats.compute_seconds,
    Family(
        "weir_input_tokens_total", "counter", MODEL, "tokens",
        "Input tokens without padding; 0 for a model without lengths. "
        "For an encoder-decoder, the tokens of the sources.",
        "more work.",
    ): lambda stats: stats.tokens,
    Family(
        "weir_padded_tokens_total", "counter", MODEL, "tokens",
        "Computed input tokens, with padding.",
        "more work. If it rises faster than the input tokens, lengths vary more, "
        "or too few requests wait to be grouped by length.",
    ): lambda stats: stats.padded_tokens,
}  # fmt: skip
GENERATION: Readers[GenerationStats] = {
    Family(
        "weir_generation_first_token_seconds", "histogram", MODEL, "seconds",
        "Time to first token: from a request's arrival to the end of a row's first step.",
        "that rows wait for a decoder slot, or for the encoder.",
    ): lambda stats: stats.first_token,
    Family(
        "weir_generation_token_seconds", "histogram", MODEL, "seconds",
        "Inter-token latency: a row's average time from one step to the next.",
        "more rows per step, or a slower machine.",
    ): lambda stats: stats.token,
    Family(
        "weir_generation_steps_total", "counter", MODEL, "steps",
        "Runs of the decoder.",
        "more work. If it rises faster than the tokens, fewer rows share a step.",
    ): lambda stats: stats.steps,
    Family(
        "weir_generation_tokens_total", "counter", MODEL, "tokens",
        "Generated tokens, without end tokens.", "more work.",
    ): lambda stats: stats.tokens,
    Family(
        "weir_generation_finished_total", "counter", (*MODEL, "reason"), "rows",
        "Finished rows by reason: end, limit, cancelled, deadline or failed.",
        "more finished rows. For limit, answers are cut off; for failed, see the log.",
    ): lambda stats: stats.finished,
    Family(
        "weir_generation_active_rows", "gauge", MODEL, "rows",
        "Rows in the decoder; each beam counts.",
        "more load. At max_batch_rows new rows wait.",
    ): lambda stats: stats.active_rows,
}  # fmt: skip
GAUGES: Readers[ModelGauges] = {
    Family(
        "weir_model_ready", "gauge", MODEL, "0 or 1",
        "1 if the version serves requests, 0 if it is loading, failed or unloaded.",
    ): lambda model: model.is_ready,
    Family(
        "weir_model_batched", "gauge", (*MODEL, "reason"), "0 or 1",
        "1 if requests share batches, 0 if each runs alone, while the version is loaded. "
        "The reason is what decided it: contract, setting, proof, no_axis (no first axis can be "
        "the batch axis), form or run (a proof failed), or row_count (a run disproved it).",
    ): lambda model: (
        None if model.is_batched is None else {model.batched_by: float(model.is_batched)}
    ),
    Family(
        "weir_queue_requests", "gauge", MODEL, "requests", "Waiting requests.", "overload."
    ): lambda model: model.waiting_requests,
    Family(
        "weir_queue_rows", "gauge", MODEL, "rows", "Waiting rows.",
        "overload. At weir_queue_limit_rows requests are rejected.",
    ): lambda model: model.waiting_rows,
    Family(
        "weir_queue_limit_rows", "gauge", MODEL, "rows",
        "The most rows that may wait (max_queue_rows), while the model is loaded.",
    ): lambda model: model.queue_limit_rows,
    Family(
        "weir_expected_answer_seconds", "gauge", MODEL, "seconds",
        "Time in which a request of one row that arrived now would be answered, as estimated from "
        "the runs so far. Without a free session, a request is refused if this is more than 80 % "
        "of its time. Absent before the first run.",
        "overload, or slower runs.",
    ): lambda model: model.expected_s,
    Family(
        "weir_running_requests", "gauge", MODEL, "requests",
        "Requests in running batches.", "larger or slower batches.",
    ): lambda model: model.running_requests,
    Family(
        "weir_inflight_bytes", "gauge", MODEL, "bytes",
        "Bytes of the requests that wait or run: messages, decoded inputs, and answers of a known "
        "size. Requests below 8 KiB do not count.",
        "more or larger requests. At weir_inflight_limit_bytes requests are rejected.",
    ): lambda model: model.inflight_bytes,
    Family(
        "weir_inflight_limit_bytes", "gauge", MODEL, "bytes",
        "The most bytes of requests that may wait and run (max_inflight_bytes), while the model is "
        "loaded. The server as a whole has another limit.",
    ): lambda model: model.inflight_limit_bytes,
}  # fmt: skip
LOADS = Family(
    "weir_model_loads_total", "counter", ("model", "result"), "loads",
    "Loads of versions by result: ready, failed, or golden_mismatch if a model did not reproduce "
    "its recorded outputs. All three exist from 0 once a model is known.",
    "more loads. For failed and golden_mismatch, a version cannot be served; see the log.",
)  # fmt: skip
LAST_LOAD: Readers[ModelStats] = {
    Family(
        "weir_model_load_seconds", "gauge", MODEL, "seconds",
        "Duration of the last load, with its checks.", "a slower start.",
    ): lambda stats: stats.load_seconds if stats.provider else None,
    Family(
        "weir_model_provider", "gauge", (*MODEL, "provider"), "1",
        "1 for the execution provider of the model.",
    ): lambda stats: {stats.provider: 1} if stats.provider else None,
    Family(
        "weir_model_threads", "gauge", MODEL, "threads",
        "Threads within one operator of the model, as set or as chosen at its last load.",
    ): lambda stats: stats.threads or None,
    Family(
        "weir_model_instances", "gauge", MODEL, "instances",
        "Batches of the model that may run at the same time, as set or as chosen at its last load.",
    ): lambda stats: stats.instances or None,
}  # fmt: skip
