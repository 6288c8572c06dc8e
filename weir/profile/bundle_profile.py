"""Profile of a bundle's graphs on its golden inputs, and advice for the engineer who exports it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle import reader
from weir.bundle.contract import Contract
from weir.bundle.golden import Golden
from weir.bundle.reader import Bundle
from weir.profile import avoidable
from weir.profile.avoidable import Finding
from weir.profile.graph_profile import GraphProfile, Inputs, ProfileError, profile

logger = logging.getLogger(__name__)

Array = NDArray[Any]

MOST_ROWS = 32

# Advice takes a few tenths of a second: runs of each batch size, and proofs.
_ADVICE_S, _ADVICE_PROOFS_S = 0.03, 0.3
# Of a run: a kind of less is no advice, and nodes of less are not looked at.
_LEAST_ADVISED, _LEAST_TRIED = 0.03, 0.01
# A profile holds the graph twice.
_MOST_ADVISED_BYTES = 1 << 30


def profile_bundle(bundle: Bundle, *, seconds: float) -> Mapping[str, GraphProfile]:
    """The profile of each graph of a bundle, in batches of one row and of many.

    Raises:
        ProfileError: a graph has no golden inputs, or runs on CUDA alone.
    """
    contract = bundle.contract
    if "cpu" not in contract.providers:
        raise ProfileError(
            f"expected a bundle for the CPU, got providers {', '.join(contract.providers)}"
        )
    profiles = {}
    for name, graph in bundle.graphs.items():
        golden = bundle.golden(None if name == "model" else name)
        if golden is None:
            raise ProfileError(f"{name}: expected golden inputs, got none")
        is_batched = contract.batch_axis is not None
        profiles[name] = profile(
            graph,
            repeated([golden.inputs]) if is_batched else _always(golden.inputs),
            _batch_sizes(contract, golden) if is_batched else (1,),
            seconds=seconds,
        )
    return MappingProxyType(profiles)


def repeated(inputs: Sequence[Inputs]) -> Callable[[int], Inputs]:
    """A function that makes a batch of any number of rows: it repeats the given rows."""
    joined = {name: np.concatenate([each[name] for each in inputs]) for name in inputs[0]}
    return lambda rows: {
        name: array[np.arange(rows) % len(array)] for name, array in joined.items()
    }


def _always(inputs: Inputs) -> Callable[[int], Inputs]:
    return lambda _: inputs


def _batch_sizes(contract: Contract, golden: Golden) -> Sequence[int]:
    """One row, and as many as a batch may have of the longest recorded row."""
    most = min(MOST_ROWS, contract.batching.max_rows)
    if (tokens := contract.batching.max_tokens) is not None:
        lengths = [golden.inputs[name].shape[1:2] for name in _padded(contract, golden)]
        longest = max((size for shape in lengths for size in shape), default=1)
        most = max(1, min(most, tokens // longest))
    return sorted({1, most})


def _padded(contract: Contract, golden: Golden) -> Sequence[str]:
    padded = {name for axis in contract.padded_axes.values() for name in axis.padding}
    return [name for name in golden.inputs if name in padded]


def advice(directory: Path) -> list[str]:
    """What is avoidable in the graphs of a published bundle, and how: a line for each kind.

    A kind below 3 % of a run of the largest batch is left out. A bundle that cannot be profiled
    gives no advice.
    """
    try:
        bundle = reader.read(directory)
        if sum(map(len, bundle.files.values())) > _MOST_ADVISED_BYTES:
            return []
        profiles = profile_bundle(bundle, seconds=_ADVICE_S)
        return [
            line
            for name, each in profiles.items()
            for line in _advice(each, "" if name == "model" else f"{name}: ")
        ]
    except Exception as error:  # noqa: BLE001 - the bundle is published, whatever its profile says
        logger.debug("no advice for %s: %s", directory, error)
        return []


def _advice(profiled: GraphProfile, graph: str) -> list[str]:
    # Of the largest batch alone: in a run of 20 microseconds, each node takes less than the
    # profiler's resolution.
    largest = replace(profiled, runs=profiled.runs[-1:])
    (run,) = largest.runs
    lines = []
    for finding in avoidable.find(largest, seconds=_ADVICE_PROOFS_S, least_share=_LEAST_TRIED):
        share = finding.avoidable_us[-1] / run.run_us
        if share >= _LEAST_ADVISED:
            lines.append(
                f"{graph}avoidable: {share:.0%} of a run of {run.rows} "
                f"row{'' if run.rows == 1 else 's'}, by {finding.kind.name} "
                f"({_operators(profiled, finding)}). {finding.kind.fix}"
            )
    return lines


def _operators(profiled: GraphProfile, finding: Finding) -> str:
    names = dict.fromkeys(profiled.nodes[place].operator for place in finding.nodes)
    return f"{len(finding.nodes)} node{'s' if len(finding.nodes) > 1 else ''}: {', '.join(names)}"
