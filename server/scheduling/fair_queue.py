"""Fair queueing: peers take turns, each by the time that its jobs have taken.

Without turns, a peer whose jobs take a second each keeps all others waiting for all of them. A peer
is one connection. Its jobs keep their order.

The next job is one of the waiting peer that was served least. A job counts when it starts, by the
time of its peer's last job, and is corrected when it ends. A peer that has been away starts at the
present level, so that it saves up nothing. Not thread-safe.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

# The least that a job counts.
_MIN_S = 0.001
# Peers that are away, and are remembered.
_MAX_AWAY = 1024


class HasPeer(Protocol):
    """A job; `peer` names whose it is."""

    @property
    def peer(self) -> str:
        """Its connection."""


J = TypeVar("J", bound=HasPeer)


@dataclass(slots=True)
class _Served:
    """What a peer has had: seconds in all, and those of its last job."""

    total_s: float
    last_s: float = _MIN_S


class FairQueue(Generic[J]):
    """The waiting jobs of all peers."""

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[J, None]] = {}
        self._served: OrderedDict[str, _Served] = OrderedDict()
        self._started: dict[J, float] = {}
        self._level_s = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[J]:
        for jobs in self._waiting.values():
            yield from jobs

    def __contains__(self, job: J) -> bool:
        return job in self._waiting.get(job.peer, ())

    def add(self, job: J) -> None:
        """Add a job at the end of its peer's."""
        peer = job.peer
        served = self._served.setdefault(peer, _Served(self._level_s))
        if peer not in self._waiting:
            served.total_s = max(served.total_s, self._level_s)
            self._waiting[peer] = OrderedDict()
            self._served.move_to_end(peer)
            self._forget()
        self._waiting[peer][job] = None
        self._count += 1

    def ahead(self, peer: str) -> int:
        """How many jobs may start before a new one of a peer, if peers take turns evenly."""
        own = len(self._waiting.get(peer, ()))
        return sum([min(len(jobs), own + 1) for jobs in self._waiting.values()])

    def remove(self, job: J) -> None:
        """Remove a waiting job."""
        self._take(job)

    def start(self) -> J:
        """Remove the job whose turn it is; `end` is called when it has ended."""
        peer = min(self._waiting, key=lambda each: self._served[each].total_s)
        job = next(iter(self._waiting[peer]))
        self._take(job)
        served = self._served[peer]
        self._level_s = max(self._level_s, served.total_s)
        served.total_s += served.last_s
        self._started[job] = served.last_s
        return job

    def end(self, job: J, took_s: float) -> None:
        """Count the time that a started job took."""
        counted_s, took_s = self._started.pop(job), max(took_s, _MIN_S)
        served = self._served.get(job.peer)
        if served is not None:
            served.total_s += took_s - counted_s
            served.last_s = took_s

    def _take(self, job: J) -> None:
        jobs = self._waiting[job.peer]
        del jobs[job]
        if not jobs:
            del self._waiting[job.peer]
        self._count -= 1

    def _forget(self) -> None:
        """Forget the peer that has been away longest, if there are many."""
        if len(self._served) - len(self._waiting) > _MAX_AWAY:
            away = next(each for each in self._served if each not in self._waiting)
            del self._served[away]
