"""What a metric is, said once: for the export, and for the page that describes it (`metrics_page`).

The families themselves stand in the module of their subject; `metrics.SUBJECTS` has them all.
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

Values = CounterMetricFamily | GaugeMetricFamily | UntypedMetricFamily

_CLASSES: Mapping[str, type[Values]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "untyped": UntypedMetricFamily,
}

MODEL = ("model", "version")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: as a query says it; of a histogram without `_bucket`, `_sum` and `_count`.
        kind: `untyped` for counters whose names are another server's and lack `_total`.
        labels: of each of its samples.
        unit: of the value; of a histogram, of what is observed.
        what: it tells, a sentence.
        rise: what a rise means, after "A rise:"; empty where it means nothing by itself.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "untyped"]
    labels: tuple[str, ...]
    unit: str
    what: str
    rise: str = ""

    @property
    def help(self) -> str:
        """The text beside it in `/metrics`."""
        return f"{self.what} A rise: {self.rise}" if self.rise else self.what

    def values(self) -> Values:
        """Empty, to be given a value for each set of labels."""
        return _CLASSES[self.kind](self.name, self.help, labels=self.labels)

    def one(self, value: float) -> Values:
        """With the one value of a family without labels."""
        values = self.values()
        values.add_metric((), value)
        return values

    def histogram(self) -> HistogramMetricFamily:
        """Empty, to be given buckets and a sum for each set of labels."""
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)


@dataclass(frozen=True, slots=True)
class Subject:
    """Families that belong together, for the page.

    Attributes:
        title: of the section.
        text: what is to be said of all of them.
        families: in the page's order.
    """

    title: str
    text: str
    families: tuple[Family, ...]
