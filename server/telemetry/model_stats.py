"""Statistics of a model version, and the Prometheus metrics made of them.

The request path adds to plain numbers under one lock, once per batch where possible. A scrape
copies the numbers under the lock and builds the Prometheus objects without it.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import Metric

from weir.server.runtime.collate import Tokens
from weir.server.telemetry.metric_family import MODEL, Family
from weir.server.transport.call_stats import ROWS, SECONDS, Histogram

REQUESTS = Family(
    "weir_requests_total", "counter", (*MODEL, "status"), "requests",
    "Finished requests by gRPC status. Model and version are empty if no model was found.",
    "more traffic for OK, and more failures of that kind for any other status.",
)  # fmt: skip
FAILURES = Family(
    "weir_request_failures_total", "counter", (*MODEL, "reason"), "requests",
    "Requests that ended with a status other than OK, by reason. A reason is finer than a status.",
    "more failures of that kind. For `internal`, the log has an error id.",
)  # fmt: skip
REQUEST_BYTES = Family(
    "weir_request_bytes_total", "counter", MODEL, "bytes",
    "Size of the request messages, with those of failed requests.",
    "more or larger requests.",
)  # fmt: skip
RESPONSE_BYTES = Family(
    "weir_response_bytes_total", "counter", MODEL, "bytes",
    "Size of the response messages.",
    "more or larger responses.",
)  # fmt: skip
ROWS_TOTAL = Family(
    "weir_rows_total", "counter", MODEL, "rows", "Computed rows.", "more work."
)  # fmt: skip
BATCHES = Family(
    "weir_batches_total", "counter", MODEL, "batches", "Runs of the model.",
    "more work. If it rises faster than the rows, batches get smaller.",
)  # fmt: skip
TOKENS = Family(
    "weir_input_tokens_total", "counter", MODEL, "tokens",
    "Input tokens without padding; 0 for a model without lengths. "
    "For an encoder-decoder, the tokens of the sources.",
    "more work.",
)  # fmt: skip
PADDED_TOKENS = Family(
    "weir_padded_tokens_total", "counter", MODEL, "tokens",
    "Computed input tokens, with padding.",
    "more work. If it rises faster than the input tokens, lengths vary more, "
    "or too few requests wait to be grouped by length.",
)  # fmt: skip
REQUEST_SECONDS = Family(
    "weir_request_seconds", "histogram", MODEL, "seconds",
    "Latency of successful requests: from arrival to answer.",
    "slower answers. The queue time and the compute time show the cause.",
)  # fmt: skip
QUEUE_SECONDS = Family(
    "weir_queue_seconds", "histogram", MODEL, "seconds",
    "Time in the queue, until the request's batch is cut. "
    "For images and texts it starts after preprocessing.",
    "more load than the model's sessions can compute.",
)  # fmt: skip
PREPROCESS_SECONDS = Family(
    "weir_preprocess_seconds", "histogram", MODEL, "seconds",
    "Time to decode and resize one image.", "larger images, or a slower machine.",
)  # fmt: skip
COMPUTE_SECONDS = Family(
    "weir_compute_seconds", "histogram", MODEL, "seconds",
    "Time of one run of the model on a batch.", "larger batches, or a slower machine.",
)  # fmt: skip
BATCH_ROWS = Family(
    "weir_batch_rows", "histogram", MODEL, "rows",
    "Batch size.", "more load, or clients that send more rows per request.",
)  # fmt: skip
LOAD_SECONDS = Family(
    "weir_model_load_seconds", "gauge", MODEL, "seconds",
    "Duration of the last load, with its checks.", "a slower start.",
)  # fmt: skip
PROVIDER = Family(
    "weir_model_provider", "gauge", (*MODEL, "provider"), "1",
    "1 for the execution provider of the model.",
)  # fmt: skip
READY = Family(
    "weir_model_ready", "gauge", MODEL, "0 or 1",
    "1 if the version serves requests, 0 if it is loading, failed or unloaded.",
)  # fmt: skip
QUEUE_REQUESTS = Family(
    "weir_queue_requests", "gauge", MODEL, "requests", "Waiting requests.", "overload."
)  # fmt: skip
QUEUE_ROWS = Family(
    "weir_queue_rows", "gauge", MODEL, "rows", "Waiting rows.",
    "overload. At weir_queue_limit_rows requests are rejected.",
)  # fmt: skip
QUEUE_LIMIT_ROWS = Family(
    "weir_queue_limit_rows", "gauge", MODEL, "rows",
    "The most rows that may wait (max_queue_rows), while the model is loaded.",
)  # fmt: skip
RUNNING_REQUESTS = Family(
    "weir_running_requests", "gauge", MODEL, "requests",
    "Requests in running batches.", "larger or slower batches.",
)  # fmt: skip
LOADS = Family(
    "weir_model_loads_total", "counter", ("model", "result"), "loads",
    "Loads of versions by result: ready, failed, or golden_mismatch if a model did not reproduce "
    "its recorded outputs. All three exist from 0 once a model is known.",
    "more loads. For failed and golden_mismatch, a version cannot be served; see the log.",
)  # fmt: skip

_TOTALS = {
    ROWS_TOTAL: "rows",
    BATCHES: "batches",
    TOKENS: "tokens",
    PADDED_TOKENS: "padded_tokens",
    REQUEST_BYTES: "request_bytes",
    RESPONSE_BYTES: "response_bytes",
}
_BOUNDS = {
    REQUEST_SECONDS: SECONDS,
    QUEUE_SECONDS: SECONDS,
    PREPROCESS_SECONDS: SECONDS,
    COMPUTE_SECONDS: SECONDS,
    BATCH_ROWS: ROWS,
}
# Series that exist at 0 from the start; a series that begins with a burst has no increase.
_INITIAL_STATUSES = (
    "OK", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED",
)  # fmt: skip
_GAUGES = {
    READY: "is_ready",
    QUEUE_REQUESTS: "waiting_requests",
    QUEUE_ROWS: "waiting_rows",
    QUEUE_LIMIT_ROWS: "queue_limit_rows",
    RUNNING_REQUESTS: "running_requests",
}

REQUEST_FAMILIES = (
    REQUESTS, FAILURES, REQUEST_BYTES, RESPONSE_BYTES, REQUEST_SECONDS, QUEUE_SECONDS,
    PREPROCESS_SECONDS,
)  # fmt: skip
BATCH_FAMILIES = (ROWS_TOTAL, BATCHES, BATCH_ROWS, COMPUTE_SECONDS, TOKENS, PADDED_TOKENS)
MODEL_FAMILIES = (*_GAUGES, LOADS, LOAD_SECONDS, PROVIDER)
HISTOGRAMS = {family.name: bounds for family, bounds in _BOUNDS.items()}


@dataclass(frozen=True, slots=True)
class ModelGauges:
    """The state of a model at a scrape; `queue_limit_rows` is None while it is not loaded."""

    model: str
    version: str
    is_ready: bool
    waiting_requests: int
    waiting_rows: int
    running_requests: int
    queue_limit_rows: int | None


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
        self.lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rows = 0
        self.batches = 0
        self.tokens = 0
        self.padded_tokens = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}
        self.success, self.failure, self.queue = Duration(), Duration(), Duration()
        self.by_batch_size: dict[int, BatchSizeStatistics] = {}
        # Durations of all batches, each multiplied by the number of its requests.
        self.requests_input_s = self.requests_infer_s = self.requests_output_s = 0.0
        self.last_inference_epoch_s = 0.0
        self.load_seconds = 0.0
        self.provider = ""

    def request_failed(
        self, status: str, reason: str, seconds: float, request_bytes: int, response_bytes: int = 0
    ) -> None:
        """Count a failed request; `batch_ran` counts the successful ones.

        Args:
            status: the gRPC status.
            reason: see `transport.status.Status`.
            seconds: time since its arrival.
            request_bytes: size of its message.
            response_bytes: size of the partial answers that were sent.
        """
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
            self.histograms["weir_preprocess_seconds"].add(seconds)

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
            totals, queues = (
                self.histograms["weir_request_seconds"],
                self.histograms["weir_queue_seconds"],
            )
            for value in total_s:
                totals.add(value)
            for value in queue_s:
                queues.add(value)
            self.histograms["weir_compute_seconds"].add(infer_s)
            self.histograms["weir_batch_rows"].add(rows)
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


def counters(models: Sequence[ModelStats]) -> Iterator[Metric]:
    """The counters of all models."""
    requests, failures = REQUESTS.new(), FAILURES.new()
    totals = {family: family.new() for family in _TOTALS}
    for model in models:
        labels = (model.model, model.version)
        with model.lock:
            statuses, reasons = dict(model.statuses), dict(model.reasons)
            counts = {family: getattr(model, name) for family, name in _TOTALS.items()}
        if model.model:
            statuses = dict.fromkeys(_INITIAL_STATUSES, 0) | statuses
        for status, count in statuses.items():
            requests.add_metric((*labels, status), count)
        for reason, count in reasons.items():
            failures.add_metric((*labels, reason), count)
        for family, count in counts.items():
            # Requests without a model have no rows or batches: those series are left out.
            if model.model or count:
                totals[family].add_metric(labels, count)
    yield from (requests, failures, *totals.values())


def histograms(models: Sequence[ModelStats]) -> Iterator[Metric]:
    """The histograms of all models."""
    for declared in _BOUNDS:
        family = declared.new_histogram()
        for model in models:
            with model.lock:
                histogram = model.histograms[declared.name].copy()
            family.add_metric((model.model, model.version), histogram.buckets(), histogram.total)
        yield family


def loads(
    models: Sequence[ModelStats], results: Mapping[str, Mapping[str, int]]
) -> Iterator[Metric]:
    """Results of all loads, duration of each version's last load, and its provider."""
    seconds, provider, ended = LOAD_SECONDS.new(), PROVIDER.new(), LOADS.new()
    for model in models:
        with model.lock:
            own, load_seconds = model.provider, model.load_seconds
        if own:
            seconds.add_metric((model.model, model.version), load_seconds)
            provider.add_metric((model.model, model.version, own), 1)
    for name, counts in results.items():
        for result, count in counts.items():
            ended.add_metric((name, result), count)
    yield from (seconds, provider, ended)


def gauges(models: Sequence[ModelGauges]) -> Iterator[Metric]:
    """The state of all models."""
    for declared, attribute in _GAUGES.items():
        family = declared.new()
        for model in models:
            value = getattr(model, attribute)
            if value is not None:
                family.add_metric((model.model, model.version), float(value))
        yield family
