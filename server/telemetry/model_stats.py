"""The numbers of one model version, as the request path adds them up.

Plain lists and counters under one lock, added to once per batch where that can be; `metrics` turns them
into Prometheus's form when somebody scrapes.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from weir.server.histogram import ROWS, SECONDS, Histogram
from weir.server.runtime.collate import Tokens

HISTOGRAMS = {
    "weir_request_seconds": SECONDS,
    "weir_queue_seconds": SECONDS,
    "weir_preprocess_seconds": SECONDS,
    "weir_compute_seconds": SECONDS,
    "weir_batch_rows": ROWS,
}


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """When a batch was cut, run and answered, in seconds on the scheduler's clock."""

    cut_s: float
    run_s: float
    ran_s: float
    answered_s: float


class CountedRequest(Protocol):
    """The numbers of a request that its batch adds to the model's."""

    @property
    def rows(self) -> int:
        """Rows of the request."""

    @property
    def arrived_s(self) -> float:
        """When the call came."""

    @property
    def queued_s(self) -> float:
        """Since when it waited for its model alone."""

    @property
    def is_answered(self) -> bool:
        """Whether the caller received the answer."""

    @property
    def request_bytes(self) -> int:
        """Size of its message."""

    @property
    def response_bytes(self) -> int:
        """Size of its answer."""


@dataclass(slots=True)
class Duration:
    """How often something happened and how long it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Add `count` events of `seconds` together."""
        self.count += count
        self.seconds += seconds


@dataclass(slots=True)
class BatchSizeStatistics:
    """What batches of one size cost."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


class ModelStats:
    """The numbers of one model version. Every field is read and written under `lock`."""

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
        # Of all batches, each counted once for every request in it.
        self.requests_input_s = self.requests_infer_s = self.requests_output_s = 0.0
        self.last_inference_epoch_s = 0.0
        self.load_seconds = 0.0
        self.provider = ""

    def request_failed(
        self, status: str, reason: str, seconds: float, request_bytes: int, response_bytes: int = 0
    ) -> None:
        """A request ended without an answer; those with one are counted by `batch_ran`.

        Args:
            status: of gRPC.
            reason: see `transport.status.Status`.
            seconds: since its arrival.
            request_bytes: of its message.
            response_bytes: of what was sent of an answer before.
        """
        with self.lock:
            self.statuses[status] += 1
            self.reasons[reason] += 1
            self.request_bytes += request_bytes
            self.response_bytes += response_bytes
            # Not into the histogram: what is refused at once would make the answers look fast.
            self.failure.add(seconds)

    def request_preprocessed(self, seconds: float) -> None:
        """A picture became a row."""
        with self.lock:
            self.histograms["weir_preprocess_seconds"].add(seconds)

    def batch_ran(
        self, requests: Sequence[CountedRequest], times: BatchTimes, tokens: Tokens
    ) -> None:
        """Count a batch whose requests were answered, or given up while it ran."""
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
