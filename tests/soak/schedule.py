"""The seeded schedule of a run: phases, faults, and what each client sends. Pure.

The first part of a run ends and restarts servers. The second part keeps one server, so that its
memory can be followed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

COOL_DOWN_S = 4.0
"""Nothing is sent at the end of a run, so that everything is at rest."""

_ROUND_S = 240.0
_DECKS: Mapping[str, Mapping[str, float]] = {
    "steady": {},
    "limits": {"memory_limit": 5.0, "full_disk": 3.0, "few_descriptors": 3.0},
    "restart": {"sigterm": 7.0, "kill_server": 7.0},
    "storm": {
        "kill_client": 2.5,
        "stop_client": 3.0,
        "slow_peers": 3.0,
        "scrape_burst": 2.0,
        "stop_server": 3.0,
    },
    "reload": {
        "reload_good": 1.5,
        "reload_broken": 1.5,
        "reload_half": 1.5,
        "rollback": 2.0,
        "reload_pair": 1.0,
    },
    "overload": {"overload": 6.0},
}
"""The faults of each phase, with the seconds that one takes."""
_ENDING = ("limits", "restart")
"""Phases of the first part only: they end servers, or change what a process may take.

A restart follows the limits, as the last server's log must be whole.
"""
_STEADY_S = 6.0

BURST_S = 4.0
"""The length of an overload."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run, in seconds from its start."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that the run makes, so many seconds after its start."""

    name: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rates of the calls, per second and for all clients together.

    Attributes:
        good: of the steady clients.
        disposable: of the client that is killed; good requests too.
        cancels, tight, expired, bad: of the hostile client.
        queued: groups whose deadline passes in the queue.
        deadline_s: of a good request.
    """

    good: float = 380.0
    disposable: float = 40.0
    cancels: float = 8.0
    tight: float = 6.0
    expired: float = 1.0
    bad: float = 8.0
    queued: float = 0.3
    deadline_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run: its phases and its faults, in the order of time.

    Attributes:
        late_s: how late an attempt may end, and how long an inference of a server may take that
            says it is ready; more on a machine that is busy with other things.
    """

    seed: int
    duration_s: float
    phases: Sequence[Phase]
    faults: Sequence[Fault]
    traffic: Traffic = field(default_factory=Traffic)
    late_s: float = 2.0

    @property
    def end_of_traffic_s(self) -> float:
        """When the last request is sent."""
        return self.duration_s - COOL_DOWN_S

    @property
    def unbroken_s(self) -> float:
        """From here on one server process serves."""
        ends = [phase.end_s for phase in self.phases if phase.name in _ENDING]
        return max(ends, default=0.0)

    @property
    def bursts_s(self) -> list[tuple[float, float]]:
        """Begin and end of each overload."""
        starts = [fault.at_s for fault in self.faults if fault.name == "overload"]
        return [(start, start + BURST_S) for start in starts]


def plan(
    seed: int, duration_s: float, traffic: Traffic | None = None, *, late_s: float = 2.0
) -> Schedule:
    """The schedule of a whole run."""
    random = Random(seed)
    warm_up_s = min(30.0, max(4.0, duration_s / 20))
    body_s = duration_s - COOL_DOWN_S - warm_up_s
    rounds = max(1, round(body_s / _ROUND_S))
    phases = [Phase("warm-up", 0.0, warm_up_s)]
    faults: list[Fault] = []
    now = warm_up_s
    for number in range(rounds):
        others = [name for name in _DECKS if name not in _ENDING]
        if number:
            random.shuffle(others)
        names = [*_ENDING, *others] if number < max(1, rounds // 2) else others
        lengths = {name: sum(_DECKS[name].values()) or _STEADY_S for name in names}
        scale = body_s / rounds / sum(lengths.values())
        for name in names:
            end_s = now + lengths[name] * scale
            phases.append(Phase(name, now, end_s))
            faults += _faults(random, _DECKS[name], now, scale)
            now = end_s
    phases.append(Phase("cool-down", duration_s - COOL_DOWN_S, duration_s))
    return Schedule(seed, duration_s, phases, faults, traffic or Traffic(), late_s)


def short(seed: int, duration_s: float, faults: Sequence[Fault], traffic: Traffic) -> Schedule:
    """The schedule of a run with given faults."""
    end_s = duration_s - COOL_DOWN_S
    phases = [Phase("steady", 0.0, end_s), Phase("cool-down", end_s, duration_s)]
    return Schedule(seed, duration_s, phases, faults, traffic)


def _faults(random: Random, deck: Mapping[str, float], start_s: float, scale: float) -> list[Fault]:
    """The faults of a phase: each one as often as it fits."""
    repeats = max(1, int(scale / 2))
    faults = []
    for _ in range(repeats):
        names = list(deck)
        random.shuffle(names)
        for name in names:
            slot_s = deck[name] * scale / repeats
            spare_s = max(0.0, slot_s - deck[name])
            faults.append(Fault(name, start_s + random.random() * spare_s))
            start_s += slot_s
    return faults
