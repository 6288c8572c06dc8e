"""The declaration of a metric, and its Prometheus family at a scrape.

Each metric is declared once, with its reader, in the module of its statistics. `metrics.GROUPS`
lists all of them for the page of metrics (`tools.metrics_page`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UntypedMetricFamily,
)

from weir.server.transport.call_stats import Histogram

MODEL = ("model", "version")

Labels = tuple[str, ...]
Value = float | Histogram | Mapping[str, float] | None
"""A metric's value in one source: None has no sample, a mapping one for each last label."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: as in a query; for a histogram without `_bucket`, `_sum` and `_count`.
        kind: its type; `untyped` for counters of Triton, whose names lack `_total`.
        unit: of the value; for a histogram, of an observation.
        rise: what a rise means; empty for a constant.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "untyped"]
    labels: Labels
    unit: str
    description: str
    rise: str = ""

    @property
    def help(self) -> str:
        """The help text in `/metrics`."""
        return f"{self.description} A rise means {self.rise}" if self.rise else self.description

    def metric(self, samples: Iterable[tuple[Labels, Value]]) -> Metric:
        """The Prometheus family of the values in all sources."""
        if self.kind == "histogram":
            histograms = HistogramMetricFamily(self.name, self.help, labels=self.labels)
            for labels, value in samples:
                if isinstance(value, Histogram):
                    histograms.add_metric(labels, value.buckets(), value.total)
            return histograms
        family = _CLASSES[self.kind](self.name, self.help, labels=self.labels)
        for labels, value in samples:
            if isinstance(value, Mapping):
                for label, number in value.items():
                    family.add_metric((*labels, label), number)
            elif isinstance(value, int | float):
                family.add_metric(labels, value)
        return family


_CLASSES: Mapping[
    str, type[CounterMetricFamily] | type[GaugeMetricFamily] | type[UntypedMetricFamily]
] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "untyped": UntypedMetricFamily}

S = TypeVar("S")
Readers = Mapping[Family, Callable[[S], Value]]
"""Metrics and how each is read from one source, such as the statistics of a version."""


def collect(
    readers: Readers[S],
    sources: Iterable[tuple[Labels, S]],
    lock_of: Callable[[S], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Metric]:
    """The Prometheus families of all sources, each with its labels."""
    values: dict[Family, list[tuple[Labels, Value]]] = {family: [] for family in readers}
    for labels, source in sources:
        with lock_of(source):
            for family, read in readers.items():
                values[family].append((labels, _copy(read(source))))
    for family, samples in values.items():
        yield family.metric(samples)


def _copy(value: Value) -> Value:
    if isinstance(value, Histogram):
        return value.copy()
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True)
class MetricGroup:
    """Metrics that belong together: a section of the page, in its order."""

    title: str
    description: str
    families: tuple[Family, ...]
