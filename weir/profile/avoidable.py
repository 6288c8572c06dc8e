"""Avoidable time of a graph: nodes that another graph of the same network does not need.

Rules:
- A candidate is proved by a run: its nodes and their replacement run as small graphs of their own,
  with the shapes of the profiled run. The share that is saved there is applied to the nodes' time
  in the profile; a share below a fifth is not counted.
- A node belongs to one finding.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weir.profile.graph_profile import GraphProfile, small_graph_us
from weir.profile.onnx_writer import NewNode
from weir.profile.replacements import Candidate, Kind, SmallGraph, Tensors, candidates

# The share of a run below which nodes are not tried, and the share of the nodes' time below which a
# saving is not counted.
_LEAST_SHARE, _LEAST_SAVED = 0.005, 0.2
# Its run takes the time of a call.
_IDLE, _IDLE_INPUT = NewNode("Neg", ["x"], ["y"]), {"x": np.ones(1, np.float32)}


@dataclass(frozen=True, slots=True)
class Finding:
    """Nodes of one kind, and what is avoidable of their time.

    Attributes:
        nodes: places in `GraphProfile.nodes`.
        us: time of the nodes, by run of the profile.
        avoidable_us: what their replacement saves of it, likewise.
    """

    kind: Kind
    nodes: Sequence[int]
    us: Sequence[float]
    avoidable_us: Sequence[float]


def find(
    profile: GraphProfile,
    *,
    seconds: float,
    least_share: float = _LEAST_SHARE,
    time_us: Callable[..., float] = small_graph_us,
) -> list[Finding]:
    """What is avoidable of a profiled graph, the most first.

    Args:
        seconds: for all proofs, about; what is not proved in that time is not counted.
        least_share: of a run; nodes that take less together are not tried.
        time_us: measures a run of a few nodes, as `small_graph_us`.
    """
    proofs = _Proofs(seconds, time_us)
    by_kind: dict[Kind, list[tuple[Candidate, list[float]]]] = {}
    taken: set[int] = set()
    # In the order of their time in the largest batch.
    ordered = sorted(
        candidates(profile), key=lambda each: _times_us(profile, each)[-1], reverse=True
    )
    for candidate in ordered:
        times_us = zip(_times_us(profile, candidate), profile.runs, strict=True)
        share = max(us / run.run_us for us, run in times_us)
        if taken.intersection(candidate.nodes) or share < least_share:
            continue
        saved = [proofs.saved(candidate, run.tensors) for run in profile.runs]
        if any(saved):
            taken.update(candidate.nodes)
            by_kind.setdefault(candidate.kind, []).append((candidate, saved))
    findings = [_finding(profile, kind, found) for kind, found in by_kind.items()]
    return sorted(findings, key=lambda each: each.avoidable_us[-1], reverse=True)


def _finding(
    profile: GraphProfile, kind: Kind, found: Sequence[tuple[Candidate, list[float]]]
) -> Finding:
    by_candidate = [_times_us(profile, candidate) for candidate, _ in found]
    us = list(zip(*by_candidate, strict=True))
    return Finding(
        kind=kind,
        nodes=sorted(place for candidate, _ in found for place in candidate.nodes),
        us=[sum(times) for times in us],
        avoidable_us=[
            sum(time * saved[at] for time, (_, saved) in zip(times, found, strict=True))
            for at, times in enumerate(us)
        ],
    )


def _times_us(profile: GraphProfile, candidate: Candidate) -> list[float]:
    """The time of a candidate's nodes, by run of the profile."""
    return [sum(run.node_us[place] for place in candidate.nodes) for run in profile.runs]


class _Proofs:
    """The saved parts of candidates, each measured once."""

    def __init__(self, seconds: float, time_us: Callable[..., float]) -> None:
        self._ends_s = time.perf_counter() + seconds
        self._known: dict[str, float] = {}
        self._run_us = time_us
        self._call_us: float | None = None

    def saved(self, candidate: Candidate, tensors: Tensors) -> float:
        """The part of the nodes' time that the replacement saves; 0 if too little."""
        if candidate.graphs is None:
            return 1.0
        before, after = candidate.graphs(tensors)
        key = repr(
            [
                (small.nodes, [(name, array.dtype, array.shape) for name, array in arrays.items()])
                for small in (before, after)
                for arrays in (small.inputs, small.constants)
            ]
        )
        if key not in self._known:
            if time.perf_counter() > self._ends_s:
                return 0.0
            try:
                self._known[key] = self._measure(before, after)
            except Exception:  # noqa: BLE001 - the runtime raises many unrelated classes
                # What does not run is not proved: not every operator takes every type.
                self._known[key] = 0.0
        return self._known[key]

    def _measure(self, before: SmallGraph, after: SmallGraph) -> float:
        if self._call_us is None:
            self._call_us = self._run_us([_IDLE], _IDLE_INPUT, {})
        before_us = self._time_us(before, is_optimised=False)
        after_us = self._time_us(after, is_optimised=True) if after.nodes else 0.0
        saved = 1.0 - after_us / before_us if before_us else 0.0
        return saved if saved >= _LEAST_SAVED else 0.0

    def _time_us(self, small: SmallGraph, *, is_optimised: bool) -> float:
        us = self._run_us(*small, is_optimised=is_optimised)
        return max(0.0, us - (self._call_us or 0.0))
