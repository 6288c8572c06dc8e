"""Call statistics of a transport: counts by method and status, and latency.

The set of methods is closed: every method without a handler is counted as one, `unknown`.
"""

from collections.abc import Iterable, Mapping

import grpc

from weir.server.histogram import SECONDS, Histogram

# By number, spelled as other gRPC servers spell them: OK, InvalidArgument, …
CODES: tuple[str, ...] = tuple(
    "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
    for code in sorted(grpc.StatusCode, key=lambda code: int(code.value[0]))
)


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
