"""The numbers of one encoder-decoder: those of any model, and what only step-wise decoding has.

Added to once a step; turned into Prometheus's form when somebody scrapes, see `server.metrics`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from server.collate import Tokens
from server.generation.core import Stepped
from server.generation.row import Row
from server.tally import SECONDS, BatchSizeStatistics, Histogram, ModelMetrics

_MODEL = ("model", "version")
_HISTOGRAMS = {
    "weir_generation_first_token_seconds": (
        "From a request's arrival to the first step of a row. A rise: rows wait for slots, or for the encoder."
    ),
    "weir_generation_token_seconds": (
        "A row's time from one step to the next. A rise: more rows a step, or a busier machine."
    ),
}
_COUNTERS = {
    "weir_generation_steps": "Runs of the decoder. A rise faster than tokens: fewer rows share a step.",
    "weir_generation_tokens": "Tokens of answers, their ends not counted. A rise: more work done.",
    "weir_generation_finished": (
        "Rows by why they left: end, limit, cancelled, deadline or failed. "
        "A rise of limit: answers are cut off; of failed: see the log."
    ),
}
_ACTIVE = "Rows of the decoder in use, each of a beam's. A rise: more requests; at the limit of a batch new ones wait."


class GenerationTally:
    """The numbers of one encoder-decoder; every field is read and written under its model's lock.

    Args:
        model: the numbers that any model has.
    """

    def __init__(self, model: ModelMetrics) -> None:
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

    def answered(self, rows: int, seconds: float) -> None:
        """A request of so many rows got its answer, so long after its arrival."""
        model = self.model
        with model.lock:
            model.rows += rows
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


def families(tallies: Iterable[GenerationTally]) -> Iterator[Metric]:
    """All of it, for one scrape."""
    histograms = [
        HistogramMetricFamily(name, text, labels=_MODEL) for name, text in _HISTOGRAMS.items()
    ]
    steps, tokens = (
        CounterMetricFamily(name, _COUNTERS[name], labels=_MODEL)
        for name in ("weir_generation_steps", "weir_generation_tokens")
    )
    name = "weir_generation_finished"
    finished = CounterMetricFamily(name, _COUNTERS[name], labels=(*_MODEL, "reason"))
    active = GaugeMetricFamily("weir_generation_active_rows", _ACTIVE, labels=_MODEL)
    for tally in tallies:
        labels = (tally.model.model, tally.model.version)
        with tally.model.lock:
            for family, values in zip(histograms, (tally.first_token, tally.token), strict=True):
                family.add_metric(labels, values.buckets(), values.total)
            steps.add_metric(labels, tally.steps)
            tokens.add_metric(labels, tally.tokens)
            active.add_metric(labels, tally.active_rows)
            for reason, count in tally.finished.items():
                finished.add_metric((*labels, reason), count)
    yield from (*histograms, steps, tokens, finished, active)
