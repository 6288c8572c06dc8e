"""The calls of a transport, as its threads count them: plain numbers, read when somebody scrapes.

The set of methods is closed: whatever nobody serves is counted as one method, `unknown`.
"""

from collections.abc import Iterable, Mapping

import grpc

from weir.server.histogram import SECONDS, Histogram

# By number, as gRPC's conventions spell them: OK, InvalidArgument, …
CODES: tuple[str, ...] = tuple(
    "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
    for code in sorted(grpc.StatusCode, key=lambda code: int(code.value[0]))
)
CANCELLED: int = grpc.StatusCode.CANCELLED.value[0]
UNIMPLEMENTED: int = grpc.StatusCode.UNIMPLEMENTED.value[0]


class MethodCalls:
    """The calls of one method; one thread at a time writes.

    Args:
        name: its full name, `/package.Service/Method`.
        kind: `unary`, `server_stream` or `bidi_stream`.
    """

    __slots__ = ("handled", "kind", "method", "seconds", "service", "started")

    def __init__(self, name: str, kind: str) -> None:
        _, self.service, self.method = name.split("/")
        self.kind = kind
        self.started = 0
        # By the number of their status.
        self.handled = [0] * len(CODES)
        self.seconds = Histogram(SECONDS)

    def ended(self, code: int, seconds: float) -> None:
        """A call got its status, so long after its arrival."""
        self.handled[code] += 1
        self.seconds.add(seconds)


class Calls:
    """The calls of every method.

    Args:
        kinds: of the methods that are served, by full name.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.unknown = MethodCalls("/unknown/unknown", "unary")
        self._methods: Mapping[str, MethodCalls] = {
            name: MethodCalls(name, kind) for name, kind in kinds.items()
        }

    def of(self, method: str) -> MethodCalls:
        """Those of a method, by its full name."""
        return self._methods.get(method, self.unknown)

    def all(self) -> Iterable[MethodCalls]:
        """Every one, the unknown last."""
        return (*self._methods.values(), self.unknown)
