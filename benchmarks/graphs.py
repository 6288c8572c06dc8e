"""Two bundles of one network, exported before and after a change of the graph.

    .venv/bin/python benchmarks/graphs.py old/lenet5/1 models/lenet5/1 [--json FILE]

For each graph: rows/s of raw ONNX Runtime on one thread, on the golden rows of the first bundle;
the share of a run that is not the network itself, by ONNX Runtime's profiler; and the largest
difference between the outputs. The bundles take turns, round by round. Products, recurrent layers,
pools, activations and look-ups are the network itself; casts, transposes, masks, copies and
arithmetic outside them are not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import harness
from benchmarks.lib.harness import Column, Run, console
from benchmarks.lib.raw import raw_session, speed
from weir.bundle.reader import Bundle, read
from weir.profile.bundle_profile import profile_bundle, repeated
from weir.profile.graph_profile import GraphProfile

BATCHES = (1, 32)
BEFORE, AFTER = "before", "after"
COLUMNS = (
    Column("rows/s", "rows_per_s"),
    Column("not the network", "outside", ".1%", "median"),
)
NETWORK = {
    *("Conv", "FusedConv", "ReorderInput", "ReorderOutput", "Gemm", "FusedGemm", "MatMul"),
    *("RNN", "GRU", "LSTM", "Gather", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMax"),
    *("Relu", "Tanh", "Sigmoid", "Softmax", "LogSoftmax", "LRN", "BatchNormalization"),
}
_SECONDS, _QUICK_SECONDS = 1.0, 0.05


def main() -> None:
    """Measure, print a table and ratios, and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("bundles", type=Path, nargs=2)
    given = harness.parse(parser)
    environment, runs = harness.start(), []
    paths = dict(zip((BEFORE, AFTER), given.bundles, strict=True))
    bundles = {rival: read(path) for rival, path in paths.items()}
    seconds = _QUICK_SECONDS if given.quick else _SECONDS
    shares = {
        rival: {
            name: outside(each) for name, each in profile_bundle(bundle, seconds=seconds).items()
        }
        for rival, bundle in bundles.items()
    }
    for name in bundles[BEFORE].graphs:
        sessions = {rival: raw_session(path / f"{name}.onnx", 1) for rival, path in paths.items()}
        inputs_of = repeated([_golden_inputs(bundles[BEFORE], name)])
        outputs = [session.run(None, inputs_of(BATCHES[-1])) for session in sessions.values()]
        largest = max(float(np.abs(a - b).max()) for a, b in zip(*outputs, strict=True))
        console.print(f"{name}: the outputs differ by at most {largest:.1e}", highlight=False)
        for number in range(given.rounds):
            for rival, session in sessions.items():
                for rows, share in zip(BATCHES, shares[rival][name], strict=False):
                    figures = {**speed(session, inputs_of(rows), rows, seconds), "outside": share}
                    runs.append(Run(rival, f"{name}, batch {rows}", number, figures))
    console.print(harness.table(runs, COLUMNS))
    for case in dict.fromkeys(run.case for run in runs):
        harness.print_ratio(runs, "rows_per_s", case=case, of=AFTER, to=BEFORE)
    harness.write(given.json, environment, runs)


def outside(profiled: GraphProfile) -> list[float]:
    """The share of all nodes' time that is not the network itself, by batch size."""
    return [
        sum(
            us
            for node, us in zip(profiled.nodes, run.node_us, strict=True)
            if node.operator not in NETWORK
        )
        / sum(run.node_us)
        for run in profiled.runs
    ]


def _golden_inputs(bundle: Bundle, name: str) -> Mapping[str, NDArray[Any]]:
    golden = bundle.golden(None if name == "model" else name)
    if golden is None:
        raise SystemExit(f"{name}: expected golden inputs, got none")
    return golden.inputs


if __name__ == "__main__":
    main()
