"""Two bundles of one network in different precisions: accuracy, speed and size.

    .venv/bin/python benchmarks/precision.py models/inception-v1/1 models/inception-v1/2 \
        [--json FILE]

The accuracies are those that the export measured on the test set and recorded in the contract. The
speed is that of raw ONNX Runtime on one thread, on the bundles' golden rows; the bundles take
turns, round by round.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.lib.machine import machine, raw_session
from weir.bundle.contract import Contract
from weir.bundle.reader import MODEL, Bundle, read

BATCHES = (1, 32)
ROUNDS = 5
_SECONDS = 2.0

console = Console(width=120)


@dataclass(frozen=True, slots=True)
class Speed:
    """Rows per second of one bundle at one batch size, by round."""

    batch_rows: int
    rows_per_s: list[float]

    def text(self) -> str:
        """The median with the spread."""
        middle = statistics.median(self.rows_per_s)
        return f"{middle:,.0f} ({min(self.rows_per_s):,.0f} to {max(self.rows_per_s):,.0f})"


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bundles = [read(path) for path in arguments.bundles]
    sessions = [raw_session(path / MODEL, 1) for path in arguments.bundles]
    speeds = take_turns(sessions, bundles)
    show(bundles, speeds)
    if arguments.json:
        rows = {
            str(path): {"accuracy": accuracy(bundle.contract), "speeds": [*map(asdict, measured)]}
            for path, bundle, measured in zip(arguments.bundles, bundles, speeds, strict=True)
        }
        arguments.json.write_text(json.dumps({"machine": machine(), "bundles": rows}, indent=2))


def take_turns(sessions: list[ort.InferenceSession], bundles: list[Bundle]) -> list[list[Speed]]:
    """The speed of each bundle at every batch size."""
    speeds = [[Speed(rows, []) for rows in BATCHES] for _ in bundles]
    for _ in range(ROUNDS):
        for measured, session, bundle in zip(speeds, sessions, bundles, strict=True):
            for speed in measured:
                inputs = golden_rows(bundle, speed.batch_rows)
                speed.rows_per_s.append(run(session, inputs, speed.batch_rows))
    return speeds


def golden_rows(bundle: Bundle, rows: int) -> dict[str, NDArray[Any]]:
    """The recorded inputs, repeated to this number of rows."""
    golden = bundle.golden()
    if golden is None:
        sys.exit("expected a bundle with golden rows")
    return {name: array[np.arange(rows) % len(array)] for name, array in golden.inputs.items()}


def run(session: ort.InferenceSession, inputs: dict[str, NDArray[Any]], rows: int) -> float:
    """Rows a second."""
    session.run(None, inputs)
    runs, started_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - started_s) < _SECONDS:
        session.run(None, inputs)
        runs += 1
    return runs * rows / passed_s


def accuracy(contract: Contract) -> float | None:
    """The accuracy of the graph in the bundle, on the test set."""
    if contract.quantisation is not None:
        return contract.quantisation.after
    return contract.training.metrics.get("test_accuracy") if contract.training else None


def show(bundles: list[Bundle], speeds: list[list[Speed]]) -> None:
    """The table."""
    table = Table("precision", "accuracy", "model.onnx", title=machine())
    for rows in BATCHES:
        table.add_column(f"rows/s, batch {rows} (least to most)", justify="right")
    for bundle, measured in zip(bundles, speeds, strict=True):
        right = accuracy(bundle.contract)
        table.add_row(
            bundle.contract.precision,
            "unknown" if right is None else f"{right:.2%}",
            f"{len(bundle.model) / 1e6:.2f} MB",
            *(speed.text() for speed in measured),
        )
    console.print(table)


if __name__ == "__main__":
    main()
