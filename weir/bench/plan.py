"""Load plan: which calls to make, and when. Pure: no clock, no network.

Two kinds of load answer two questions:

- *Closed loop*: exactly `concurrency` calls are in flight, each replaced when it ends. It measures
  the server's throughput. A slow server gets fewer calls, so its latency looks better than users
  would see it.
- *Open loop*: calls arrive at `rate_per_s`, at the random times of a Poisson process, whatever the
  server does. Latency counts from the time a call was due, not from its sending. It measures the
  latency that users would see.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from weir.client.credentials import StrPath, Tls
from weir.client.errors import UsageError


@dataclass(frozen=True, slots=True)
class Plan:
    """One load: its request, rate and duration.

    Attributes:
        concurrency: calls in flight in a closed loop.
        connections: number of channels that share the calls.
        duration_s: how long calls are measured, unless `requests` gives their number.
        rate_per_s: arrival rate of an open loop; None for a closed loop.
        seed: of the open loop's arrival times.
        tls, token_file, headers: as `tls`, `token_file` and `metadata` of `weir.Client`.
    """

    target: str
    path: str
    body: bytes
    concurrency: int = 32
    connections: int = 1
    duration_s: float = 10.0
    requests: int | None = None
    rate_per_s: float | None = None
    warmup_s: float = 1.0
    timeout_s: float = 30.0
    seed: int = 0
    tls: bool | Tls | None = None
    token_file: StrPath | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("concurrency", "connections", "requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        for name in ("duration_s", "rate_per_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"{name} must be above 0, got {value}")
        if self.rate_per_s is None and self.connections > self.concurrency:
            raise UsageError(
                f"{self.connections} connections need at least as many calls in flight, "
                f"got {self.concurrency}"
            )

    def shares(self, processes: int) -> list["Plan"]:
        """The load divided among processes."""
        if processes < 1:
            raise UsageError(f"processes must be at least 1, got {processes}")
        scarce = {"concurrency": self.concurrency, "requests": self.requests}
        if self.rate_per_s is not None:
            del scarce["concurrency"]
        for name, value in scarce.items():
            if value is not None and value < processes:
                raise UsageError(f"{name} must be at least {processes} for as many processes")
        return [self._share(number, processes) for number in range(processes)]

    def _share(self, number: int, processes: int) -> "Plan":
        return dataclasses.replace(
            self,
            concurrency=_part(self.concurrency, number, processes) or 1,
            connections=_part(self.connections, number, processes) or 1,
            requests=self.requests and _part(self.requests, number, processes),
            rate_per_s=self.rate_per_s and self.rate_per_s / processes,
            seed=self.seed + number,
        )


def _part(whole: int, number: int, parts: int) -> int:
    """The size of the part with this number; the parts sum to `whole`."""
    return whole // parts + (number < whole % parts)


def due_times_s(plan: Plan) -> Iterator[float]:
    """When each call of an open loop is due, from the start of measuring; before 0 is warm-up."""
    if plan.rate_per_s is None:
        raise UsageError("a closed loop has no due times")
    measured = 0
    for arrival_s in arrival_times_s(plan.rate_per_s, plan.seed):
        time_s = arrival_s - plan.warmup_s
        measured += time_s >= 0
        if measured > plan.requests if plan.requests else time_s >= plan.duration_s:
            return
        yield time_s


def arrival_times_s(rate_per_s: float, seed: int) -> Iterator[float]:
    """Arrival times of a Poisson process, without end: exponential gaps of mean 1 / rate."""
    gaps = random.Random(seed)
    return itertools.accumulate(gaps.expovariate(rate_per_s) for _ in itertools.count())
