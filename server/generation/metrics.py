"""The numbers of one encoder-decoder: those of any model, and what only step-wise decoding has.

Added to once a step; turned into Prometheus's form when somebody scrapes, see `weir.server.telemetry.metrics`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import Metric

from weir.server.generation.decoder_batch import Stepped
from weir.server.generation.row import GenerationRequest, Row
from weir.server.histogram import SECONDS, Histogram
from weir.server.runtime.collate import Tokens
from weir.server.telemetry.families import MODEL, Family
from weir.server.telemetry.model_stats import BatchSizeStatistics, ModelStats

FIRST_TOKEN_SECONDS = Family(
    "weir_generation_first_token_seconds", "histogram", MODEL, "seconds",
    "From a request's arrival to the first step of a row.",
    "rows wait for slots, or for the encoder.",
)  # fmt: skip
TOKEN_SECONDS = Family(
    "weir_generation_token_seconds", "histogram", MODEL, "seconds",
    "A row's time from one step to the next, its mean.",
    "more rows a step, or a busier machine.",
)  # fmt: skip
STEPS = Family(
    "weir_generation_steps_total", "counter", MODEL, "steps",
    "Runs of the decoder.", "more work done; faster than tokens: fewer rows share a step.",
)  # fmt: skip
TOKENS = Family(
    "weir_generation_tokens_total", "counter", MODEL, "tokens",
    "Tokens of answers, their ends not counted.", "more work done.",
)  # fmt: skip
FINISHED = Family(
    "weir_generation_finished_total", "counter", (*MODEL, "reason"), "rows",
    "Rows by why they left: end, limit, cancelled, deadline or failed.",
    "of limit, answers are cut off; of failed, see the log.",
)  # fmt: skip
ACTIVE_ROWS = Family(
    "weir_generation_active_rows", "gauge", MODEL, "rows",
    "Rows of the decoder in use, each of a beam's.",
    "more requests; at max_batch_rows new ones wait.",
)  # fmt: skip
FAMILIES = (FIRST_TOKEN_SECONDS, TOKEN_SECONDS, STEPS, TOKENS, FINISHED, ACTIVE_ROWS)


class GenerationStats:
    """The numbers of one encoder-decoder; every field is read and written under its model's lock.

    Args:
        model: the numbers that any model has.
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
        """Some requests were encoded, after so long in the queue; their sources held so many tokens."""
        model = self.model
        with model.lock:
            for value in queued_s:
                model.histograms["weir_queue_seconds"].add(value)
            model.queue.add(sum(queued_s), len(queued_s))
            model.histograms["weir_compute_seconds"].add(seconds)
            model.tokens += tokens.real
            model.padded_tokens += tokens.computed

    def stepped(self, stepped: Stepped, joined: Sequence[Row], seconds: float, now: float) -> None:
        """A step was made, the first of those who joined; it took so long and ended now."""
        model = self.model
        with model.lock:
            for row in joined:
                self.first_token.add(now - row.arrived_s)
            for row in stepped.ended:
                self._ended(row, now)
            self.steps += 1
            model.batches += 1
            model.histograms["weir_compute_seconds"].add(seconds)
            model.histograms["weir_batch_rows"].add(stepped.slots)
            size = model.by_batch_size.setdefault(stepped.slots, BatchSizeStatistics())
            size.compute_infer.add(seconds)
            model.requests_infer_s += stepped.slots * seconds

    def answered(self, request: GenerationRequest, seconds: float) -> None:
        """A request got its answer, so long after its arrival."""
        model = self.model
        with model.lock:
            model.rows += request.rows
            model.request_bytes += request.request_bytes
            model.response_bytes += request.response_bytes
            model.statuses["OK"] += 1
            model.success.add(seconds)
            model.histograms["weir_request_seconds"].add(seconds)
            model.last_inference_epoch_s = time.time()

    def dropped(self, reason: str, rows: int) -> None:
        """Rows left before they had ended."""
        with self.model.lock:
            self.finished[reason] += rows

    def hold(self, active_rows: int) -> None:
        """So many rows of the decoder are in use from now on."""
        with self.model.lock:
            self.active_rows = active_rows

    def _ended(self, row: Row, now: float) -> None:
        self.finished["end" if row.answers[0].is_complete else "limit"] += 1
        steps = max(len(answer.tokens) + answer.is_complete for answer in row.answers)
        self.tokens += sum(len(answer.tokens) for answer in row.answers)
        if steps > 1:
            self.token.add((now - row.first_s) / (steps - 1))


def families(tallies: Iterable[GenerationStats]) -> Iterator[Metric]:
    """All of it, for one scrape."""
    first, token = FIRST_TOKEN_SECONDS.histogram(), TOKEN_SECONDS.histogram()
    steps, tokens, finished, active = (
        family.values() for family in (STEPS, TOKENS, FINISHED, ACTIVE_ROWS)
    )
    for stats in tallies:
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
