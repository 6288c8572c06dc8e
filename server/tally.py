"""The numbers of one model version, as the request path adds them up.

Plain lists and counters under one lock, added to once per batch where that can be; `metrics` turns them
into Prometheus's form when somebody scrapes.
"""

import math
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.collate import Tokens
from server.request import BatchTimes, Request

SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

HISTOGRAMS = {
    "weir_request_seconds": (
        SECONDS,
        "From a request's arrival to its answer. A rise: look at queue and compute for its cause.",
    ),
    "weir_queue_seconds": (
        SECONDS,
        "Waiting for a batch to be cut. A rise: more load than the sessions can take.",
    ),
    "weir_decode_seconds": (
        SECONDS,
        "Decoding and resizing one picture. A rise: larger pictures, or a busier machine.",
    ),
    "weir_compute_seconds": (
        SECONDS,
        "One run of the model on a batch. A rise: larger batches, or a busier machine.",
    ),
    "weir_batch_rows": (
        ROWS,
        "Rows of a batch. A rise: more load, or clients that send more rows at once.",
    ),
}


class Histogram:
    """Counts by bucket, and their sum; the caller holds the lock."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value into the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        cumulated = 0
        pairs = []
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            cumulated += count
            pairs.append(("+Inf" if bound == math.inf else str(bound), float(cumulated)))
        return pairs


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


class ModelMetrics:
    """The numbers of one model version. Every field is read and written under `lock`."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.rows = 0
        self.batches = 0
        self.tokens = 0
        self.padded_tokens = 0
        self.histograms = {name: Histogram(bounds) for name, (bounds, _) in HISTOGRAMS.items()}
        self.success, self.failure, self.queue = Duration(), Duration(), Duration()
        self.by_batch_size: dict[int, BatchSizeStatistics] = {}
        self.last_inference_epoch_s = 0.0
        self.load_seconds = 0.0
        self.provider = ""

    def request_ended(self, status: str, seconds: float) -> None:
        """A request got its status; answered batches are counted by `batch_ended`."""
        with self.lock:
            self.statuses[status] += 1
            self.failure.add(seconds)
            self.histograms["weir_request_seconds"].add(seconds)

    def picture_decoded(self, seconds: float) -> None:
        """A picture became a row."""
        with self.lock:
            self.histograms["weir_decode_seconds"].add(seconds)

    def batch_ended(
        self,
        *,
        rows: int,
        tokens: int,
        padded_tokens: int,
        total_s: Sequence[float],
        queue_s: Sequence[float],
        input_s: float,
        infer_s: float,
        output_s: float,
        epoch_s: float,
    ) -> None:
        """A batch was run and these of its requests were answered OK.

        Args:
            rows: of the batch that ran.
            tokens: of its rows, within their lengths; 0 for a model without lengths.
            padded_tokens: that were computed for them.
            total_s: of each answered request, from arrival to answer.
            queue_s: of each answered request, from its queueing to the cut.
            input_s: joining the requests.
            infer_s: running the model.
            output_s: encoding and sending the answers.
            epoch_s: wall-clock time.
        """
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
            self.statuses["OK"] += len(total_s)
            self.success.add(sum(total_s), len(total_s))
            self.queue.add(sum(queue_s), len(queue_s))
            self.rows += rows
            self.tokens += tokens
            self.padded_tokens += padded_tokens
            self.batches += 1
            self.last_inference_epoch_s = epoch_s
            size = self.by_batch_size.setdefault(rows, BatchSizeStatistics())
            size.compute_input.add(input_s)
            size.compute_infer.add(infer_s)
            size.compute_output.add(output_s)


@dataclass(frozen=True, slots=True)
class BatchObserver:
    """Adds what the scheduler saw of a batch to its model's numbers."""

    metrics: ModelMetrics

    def batch_ran(self, requests: Sequence[Request], times: BatchTimes, tokens: Tokens) -> None:
        """Once per batch."""
        answered = [request for request in requests if request.is_answered]
        self.metrics.batch_ended(
            rows=sum(request.rows for request in requests),
            tokens=tokens.real,
            padded_tokens=tokens.computed,
            total_s=[times.answered_s - request.arrived_s for request in answered],
            queue_s=[times.cut_s - request.queued_s for request in answered],
            input_s=times.run_s - times.cut_s,
            infer_s=times.ran_s - times.run_s,
            output_s=times.answered_s - times.ran_s,
            epoch_s=time.time(),
        )
