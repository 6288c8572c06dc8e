"""Metrics of the gateway itself; those of models are the servers'."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

NO_ROUTE = "none"
"""Stands for the route of a request that no route takes."""

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RequestMetrics:
    """Counts and durations of HTTP requests by route, and the bytes of their bodies."""

    def __init__(self, body_bytes: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "weir_gateway_requests_total",
            "HTTP requests that a route has answered. A rise of codes from 500 means that servers "
            "are not reached or are overloaded.",
            ["route", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "weir_gateway_request_seconds",
            "Seconds from the headers of a request to the end of its answer. A rise without one of "
            "the servers' latency means that the gateway has no CPU left.",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        bodies = Gauge(
            "weir_gateway_body_bytes",
            "Bytes of request bodies in memory. Near the limit, requests are refused with 429.",
            registry=self._registry,
        )
        bodies.set_function(body_bytes)
        self._counters: dict[tuple[str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def count(self, route: str, code: int) -> None:
        """Count an answered request."""
        counter = self._counters.get((route, code))
        if counter is None:
            # `labels` costs more than the count.
            counter = self._counters[route, code] = self._requests.labels(route, code)
        counter.inc()

    def observe(self, route: str, code: int, seconds: float) -> None:
        """Count an answered request with its duration."""
        self.count(route, code)
        histogram = self._histograms.get(route)
        if histogram is None:
            histogram = self._histograms[route] = self._seconds.labels(route)
        histogram.observe(seconds)

    def page(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
