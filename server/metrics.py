"""Every metric, declared once, on a registry that is passed in.

Rules:
- Labels come from closed sets: models that exist, statuses of gRPC, providers.
- The request path adds to plain lists, once per batch where it can; Prometheus's objects are built
  when somebody scrapes. A scrape never holds a lock the request path waits for, but for copying.
- A model's numbers outlive its reloads.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from server.generation import metrics as generation
from server.generation.metrics import GenerationTally
from server.tally import HISTOGRAMS, ModelMetrics


@dataclass(frozen=True, slots=True)
class ModelGauges:
    """What a model holds at the moment of a scrape."""

    model: str
    version: str
    is_ready: bool
    waiting_requests: int
    waiting_rows: int
    running_requests: int


class Metrics(Collector):
    """All models' numbers, turned into Prometheus's form at each scrape.

    Args:
        registry: where to be found.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges: Callable[[], Iterable[ModelGauges]] = tuple
        self._decode_queue: Callable[[], int] = int
        self._lost_lines: Callable[[], int] = int
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._generations: dict[tuple[str, str], GenerationTally] = {}
        self._unattributed: Counter[str] = Counter()
        registry.register(self)

    def watch(self, gauges: Callable[[], Iterable[ModelGauges]]) -> None:
        """Ask this at each scrape for what the models hold."""
        self._gauges = gauges

    def watch_decoding(self, waiting: Callable[[], int]) -> None:
        """Ask this at each scrape for the requests that wait to be decoded."""
        self._decode_queue = waiting

    def watch_log(self, lost: Callable[[], int]) -> None:
        """Ask this at each scrape for the lines of the log that were lost."""
        self._lost_lines = lost

    def model(self, model: str, version: str) -> ModelMetrics:
        """The numbers of a version; made at its first load and kept through reloads."""
        with self._lock:
            return self._models.setdefault((model, version), ModelMetrics(model, version))

    def generation(self, model: str, version: str) -> GenerationTally:
        """What only an encoder-decoder has, beside the numbers of any model; likewise."""
        numbers = self.model(model, version)
        with self._lock:
            return self._generations.setdefault((model, version), GenerationTally(numbers))

    def forget(self, model: str, version: str) -> None:
        """A version is gone for good: its numbers go too, so that they do not grow with every release."""
        with self._lock:
            self._models.pop((model, version), None)
            self._generations.pop((model, version), None)

    def request_refused(self, status: str) -> None:
        """A request ended before it could be laid to a model's account."""
        with self._lock:
            self._unattributed[status] += 1

    def collect(self) -> Iterator[Metric]:
        """Everything, for one scrape."""
        with self._lock:
            models = list(self._models.values())
            generations = list(self._generations.values())
            unattributed = dict(self._unattributed)
        yield from _counters(models, unattributed)
        yield from _histograms(models)
        yield from generation.families(generations)
        yield from _loads(models)
        yield from _gauges(list(self._gauges()))
        yield GaugeMetricFamily(
            "weir_decode_queue_requests",
            "Task calls that wait to be made into rows. A rise: more than the cores can read.",
            value=self._decode_queue(),
        )
        yield CounterMetricFamily(
            "weir_log_dropped",
            "Lines of the log that were not written. A rise: nobody reads it, its disk is full, "
            "or more requests are logged than can be.",
            value=self._lost_lines(),
        )


_MODEL = ("model", "version")
_TOTALS = (
    ("weir_rows", "Rows computed. A rise: more work done.", "rows"),
    ("weir_batches", "Runs of the model. A rise faster than rows: smaller batches.", "batches"),
    (
        "weir_tokens",
        "Entries of rows, within their lengths; 0 without lengths. A rise: more work done.",
        "tokens",
    ),
    (
        "weir_padded_tokens",
        "The same with what fills rows up. A rise faster than tokens: lengths further apart.",
        "padded_tokens",
    ),
)


def _counters(models: list[ModelMetrics], unattributed: dict[str, int]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "weir_requests",
        "Requests by the status they ended with; without a model where none was found. "
        "A rise of any status but OK: see its name.",
        labels=(*_MODEL, "status"),
    )
    totals = [CounterMetricFamily(name, text, labels=_MODEL) for name, text, _ in _TOTALS]
    for status, count in unattributed.items():
        requests.add_metric(("", "", status), count)
    for model in models:
        labels = (model.model, model.version)
        with model.lock:
            statuses = dict(model.statuses)
            counts = [getattr(model, attribute) for _, _, attribute in _TOTALS]
        for status, count in statuses.items():
            requests.add_metric((*labels, status), count)
        for family, count in zip(totals, counts, strict=True):
            family.add_metric(labels, count)
    yield from (requests, *totals)


def _histograms(models: list[ModelMetrics]) -> Iterator[Metric]:
    for name, (_, text) in HISTOGRAMS.items():
        family = HistogramMetricFamily(name, text, labels=_MODEL)
        for model in models:
            with model.lock:
                buckets, total = model.histograms[name].buckets(), model.histograms[name].total
            family.add_metric((model.model, model.version), buckets, total)
        yield family


def _loads(models: list[ModelMetrics]) -> Iterator[Metric]:
    seconds = GaugeMetricFamily(
        "weir_model_load_seconds",
        "The last load, with its checks. A rise: a slower start.",
        labels=_MODEL,
    )
    provider = GaugeMetricFamily(
        "weir_model_provider",
        "1 for the execution provider the model runs on.",
        labels=(*_MODEL, "provider"),
    )
    for model in models:
        if model.provider:
            seconds.add_metric((model.model, model.version), model.load_seconds)
            provider.add_metric((model.model, model.version, model.provider), 1)
    yield from (seconds, provider)


def _gauges(gauges: list[ModelGauges]) -> Iterator[Metric]:
    rows = (
        ("weir_model_ready", "1 while the model answers; 0 is a model to look at.", "is_ready"),
        ("weir_queue_requests", "Requests that wait. A rise: overload.", "waiting_requests"),
        ("weir_queue_rows", "Rows that wait. At the limit requests are refused.", "waiting_rows"),
        (
            "weir_running_requests",
            "Requests in a batch that runs. A rise: larger batches, or slower ones.",
            "running_requests",
        ),
    )
    for name, text, attribute in rows:
        family = GaugeMetricFamily(name, text, labels=_MODEL)
        for gauge in gauges:
            family.add_metric((gauge.model, gauge.version), float(getattr(gauge, attribute)))
        yield family
