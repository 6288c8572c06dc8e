"""Two bundles of one network in different precisions: accuracy, speed and size.

    .venv/bin/python benchmarks/precision.py models/inception-v1/1 models/inception-v1/2 \
        [--json FILE]

The accuracies are those that the export measured on the test set and recorded in the contract. The
speed is that of raw ONNX Runtime on one thread, on the bundles' golden rows; the bundles take
turns, round by round.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import harness
from benchmarks.lib.harness import Column, Run, console
from benchmarks.lib.raw import raw_session, speed
from weir.bundle.contract import Contract
from weir.bundle.reader import MODEL, Bundle, read

BATCHES = (1, 32)
COLUMNS = (
    Column("accuracy", "accuracy", ".2%", "median"),
    Column("model.onnx, MB", "model_mb", ".2f", "median"),
    Column("rows/s", "rows_per_s"),
)
_SECONDS, _QUICK_SECONDS = 2.0, 0.1


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("bundles", type=Path, nargs=2)
    given = harness.parse(parser)
    environment, runs = harness.start(), []
    bundles = [(path, read(path), raw_session(path / MODEL, 1)) for path in given.bundles]
    seconds = _QUICK_SECONDS if given.quick else _SECONDS
    for number in range(given.rounds):
        for path, bundle, session in bundles:
            figures = {"model_mb": len(bundle.model) / 1e6}
            if (right := accuracy(bundle.contract)) is not None:
                figures["accuracy"] = right
            for rows in BATCHES:
                measured = speed(session, golden_rows(bundle, rows), rows, seconds)
                name = f"{path}, {bundle.contract.precision}"
                runs.append(Run(name, f"batch {rows}", number, {**figures, **measured}))
    console.print(harness.table(runs, COLUMNS))
    harness.write(given.json, environment, runs)


def golden_rows(bundle: Bundle, rows: int) -> dict[str, NDArray[Any]]:
    """The recorded inputs, repeated to this number of rows."""
    golden = bundle.golden()
    if golden is None:
        sys.exit("expected a bundle with golden rows")
    return {name: array[np.arange(rows) % len(array)] for name, array in golden.inputs.items()}


def accuracy(contract: Contract) -> float | None:
    """The accuracy of the graph in the bundle, on the test set."""
    if contract.quantisation is not None:
        return contract.quantisation.after
    return contract.training.metrics.get("test_accuracy") if contract.training else None


if __name__ == "__main__":
    main()
