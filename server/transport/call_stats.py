"""Call statistics of a transport, and the histogram of all statistics. Plain numbers only.

The set of methods is closed: every method without a handler is counted as one, `unknown`.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

import grpc

SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
# By number, spelled as other gRPC servers spell them: OK, InvalidArgument, …
CODES: tuple[str, ...] = tuple(
    "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
    for code in sorted(grpc.StatusCode, key=lambda code: int(code.value[0]))
)


class Histogram:
    """Counts of values by bucket, and their sum; one thread at a time writes."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value into the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> "Histogram":
        """A copy of the current state."""
        copy = Histogram(self.bounds)
        copy.counts, copy.total = self.counts.copy(), self.total
        return copy

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus expects them."""
        cumulated = 0
        pairs = []
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            cumulated += count
            pairs.append(("+Inf" if bound == math.inf else str(bound), float(cumulated)))
        return pairs


class MethodStats:
    """Statistics of one method, by its full name and kind; one thread at a time writes."""

    __slots__ = ("handled", "kind", "method", "seconds", "service", "started")

    def __init__(self, name: str, kind: str) -> None:
        _, self.service, self.method = name.split("/")
        self.kind = kind
        self.started = 0
        # By the number of the status.
        self.handled = [0] * len(CODES)
        self.seconds = Histogram(SECONDS)

    def ended(self, code: int, seconds: float) -> None:
        """Count a call that ended with a status, by its number, so long after its arrival."""
        self.handled[code] += 1
        self.seconds.add(seconds)


class CallStats:
    """Statistics of every method; `kinds` are those of the methods with a handler, by full name."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.unknown = MethodStats("/unknown/unknown", "unary")
        self._methods: Mapping[str, MethodStats] = {
            name: MethodStats(name, kind) for name, kind in kinds.items()
        }

    def of(self, method: str) -> MethodStats:
        """The statistics of a method, by its full name."""
        return self._methods.get(method, self.unknown)

    def all(self) -> Iterable[MethodStats]:
        """The statistics of every method, `unknown` last."""
        return (*self._methods.values(), self.unknown)
