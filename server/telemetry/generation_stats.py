"""Statistics of one encoder-decoder beside those of any model, and their Prometheus metrics.

The engine adds to plain numbers once a step; `telemetry.metrics` exports them at a scrape.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from weir.server.runtime.collate import Tokens
from weir.server.telemetry.metric_family import MODEL, Family
from weir.server.telemetry.model_stats import BatchSizeStatistics, ModelStats
from weir.server.transport.call_stats import SECONDS, Histogram

FIRST_TOKEN_SECONDS = Family(
    "weir_generation_first_token_seconds", "histogram", MODEL, "seconds",
    "Time to first token: from a request's arrival to the end of a row's first step.",
    "that rows wait for a decoder slot, or for the encoder.",
)  # fmt: skip
TOKEN_SECONDS = Family(
    "weir_generation_token_seconds", "histogram", MODEL, "seconds",
    "Inter-token latency: a row's average time from one step to the next.",
    "more rows per step, or a slower machine.",
)  # fmt: skip
STEPS = Family(
    "weir_generation_steps_total", "counter", MODEL, "steps",
    "Runs of the decoder.",
    "more work. If it rises faster than the tokens, fewer rows share a step.",
)  # fmt: skip
TOKENS = Family(
    "weir_generation_tokens_total", "counter", MODEL, "tokens",
    "Generated tokens, without end tokens.", "more work.",
)  # fmt: skip
FINISHED = Family(
    "weir_generation_finished_total", "counter", (*MODEL, "reason"), "rows",
    "Finished rows by reason: end, limit, cancelled, deadline or failed.",
    "more finished rows. For limit, answers are cut off; for failed, see the log.",
)  # fmt: skip
ACTIVE_ROWS = Family(
    "weir_generation_active_rows", "gauge", MODEL, "rows",
    "Rows in the decoder; each beam counts.",
    "more load. At max_batch_rows new rows wait.",
)  # fmt: skip
FAMILIES = (FIRST_TOKEN_SECONDS, TOKEN_SECONDS, STEPS, TOKENS, FINISHED, ACTIVE_ROWS)


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """A row whose search is done.

    Attributes:
        is_complete: whether its best hypothesis ends with the end token.
        tokens: of all its hypotheses.
        steps: of its longest hypothesis.
        decode_s: from its first step to its last.
    """

    is_complete: bool
    tokens: int
    steps: int
    decode_s: float


class GenerationStats:
    """Counters of one encoder-decoder; its model's lock guards every field.

    Args:
        model: the counters that any model has.
    """

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
                model.histograms["weir_queue_seconds"].add(value)
            model.queue.add(sum(queued_s), len(queued_s))
            model.histograms["weir_compute_seconds"].add(seconds)
            model.tokens += tokens.real
            model.padded_tokens += tokens.computed

    def stepped(
        self,
        slots: int,
        seconds: float,
        *,
        first_token_s: Sequence[float],
        finished: Sequence[FinishedRow],
    ) -> None:
        """Count a step of the decoder.

        Args:
            slots: in use.
            seconds: it took.
            first_token_s: since arrival, of each row whose first step it was.
            finished: rows whose last step it was.
        """
        model = self.model
        with model.lock:
            for value in first_token_s:
                self.first_token.add(value)
            for row in finished:
                self.finished["end" if row.is_complete else "limit"] += 1
                self.tokens += row.tokens
                if row.steps > 1:
                    self.token.add(row.decode_s / (row.steps - 1))
            self.steps += 1
            model.batches += 1
            model.histograms["weir_compute_seconds"].add(seconds)
            model.histograms["weir_batch_rows"].add(slots)
            size = model.by_batch_size.setdefault(slots, BatchSizeStatistics())
            size.compute_infer.add(seconds)
            model.requests_infer_s += slots * seconds

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
            model.histograms["weir_request_seconds"].add(seconds)
            model.last_inference_epoch_s = time.time()

    def dropped(self, reason: str, rows: int) -> None:
        """Count rows that left before they were done."""
        with self.model.lock:
            self.finished[reason] += rows

    def set_active_rows(self, rows: int) -> None:
        """Set the number of slots in use."""
        with self.model.lock:
            self.active_rows = rows


def families(models: Iterable[GenerationStats]) -> Iterator[Metric]:
    """The metrics of all encoder-decoders, for one scrape."""
    first, token = FIRST_TOKEN_SECONDS.new_histogram(), TOKEN_SECONDS.new_histogram()
    steps, tokens, finished, active = (
        family.new() for family in (STEPS, TOKENS, FINISHED, ACTIVE_ROWS)
    )
    for stats in models:
        labels = (stats.model.model, stats.model.version)
        with stats.model.lock:
            observed = ((first, stats.first_token.copy()), (token, stats.token.copy()))
            counted = (
                (steps, stats.steps),
                (tokens, stats.tokens),
                (active, stats.active_rows),
            )
            reasons = dict(stats.finished)
        for histograms, histogram in observed:
            histograms.add_metric(labels, histogram.buckets(), histogram.total)
        for values, count in counted:
            values.add_metric(labels, count)
        for reason, count in reasons.items():
            finished.add_metric((*labels, reason), count)
    yield from (first, token, steps, tokens, finished, active)
