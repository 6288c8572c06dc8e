"""The declaration of a metric, for the export and for the page of metrics (`tools.metrics_page`).

Each metric is declared in the module of its statistics; `metrics.GROUPS` lists all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    UntypedMetricFamily,
)

ScalarFamily = CounterMetricFamily | GaugeMetricFamily | UntypedMetricFamily

_CLASSES: Mapping[str, type[ScalarFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "untyped": UntypedMetricFamily,
}

MODEL = ("model", "version")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: as in a query; for a histogram without `_bucket`, `_sum` and `_count`.
        kind: its type; `untyped` for counters of Triton, whose names lack `_total`.
        labels: of each sample.
        unit: of the value; for a histogram, of an observation.
        description: a sentence.
        rise: what a rise means; empty for a constant.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "untyped"]
    labels: tuple[str, ...]
    unit: str
    description: str
    rise: str = ""

    @property
    def help(self) -> str:
        """The help text in `/metrics`."""
        return f"{self.description} A rise means {self.rise}" if self.rise else self.description

    def new(self) -> ScalarFamily:
        """A Prometheus family without samples."""
        return _CLASSES[self.kind](self.name, self.help, labels=self.labels)

    def single(self, value: float) -> ScalarFamily:
        """A Prometheus family with one sample, for a metric without labels."""
        family = self.new()
        family.add_metric((), value)
        return family

    def new_histogram(self) -> HistogramMetricFamily:
        """A Prometheus histogram without samples."""
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)


@dataclass(frozen=True, slots=True)
class MetricGroup:
    """Metrics that belong together: a section of the page.

    Attributes:
        title: of the section.
        description: of the whole group.
        families: in the order of the page.
    """

    title: str
    description: str
    families: tuple[Family, ...]
