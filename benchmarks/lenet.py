"""How fast is one picture a call? Raw ONNX Runtime beside Weir on both of its transports.

    make demo && .venv/bin/python benchmarks/lenet.py [--models .demo/models] [--json FILE]

Load comes from `h2load` (Debian: nghttp2-client) with a prepared LeNet-5 request; every answer is
counted on the server as OK, or the run is void. The transports take turns, round by round.
CPU outside the session is the server's CPU time per call less what raw ONNX Runtime needs for a row
at the mean batch size of that run.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import measuring
from benchmarks.measuring import MODEL_INFER, Load, Server, machine, serving

TRANSPORTS = ("completion-queue", "public")
# Connections and calls open on each.
SHAPES = ((1, 1), (8, 4), (1, 128), (8, 16), (16, 8))
ROUNDS = 3
_SECONDS = 3.0
_BATCHES = (1, 2, 4, 8, 16, 32, 64)

console = Console(width=132)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of the load generator against one server."""

    transport: str
    connections: int
    streams: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    mean_batch_rows: float

    @property
    def in_flight(self) -> int:
        """Calls open at once."""
        return self.connections * self.streams


def main() -> None:
    """Measure, then print a table and, if asked, write everything down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measuring.require_h2load()
    graph = arguments.models / "lenet5" / "1" / "model.onnx"
    if not graph.is_file():
        sys.exit(f"{graph} is missing: run `make demo` first")
    raw = measure_raw(graph)
    measurements = []
    for number in range(ROUNDS):
        for transport in TRANSPORTS:
            console.print(f"[dim]round {number + 1} of {ROUNDS}: {transport}[/]")
            measurements += measure_server(arguments.models, transport)
    report(raw, measurements)
    if arguments.json:
        document = {
            "machine": machine(),
            "raw_us_per_row": raw,
            "runs": [asdict(measurement) for measurement in measurements],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def measure_raw(graph: Path) -> dict[int, float]:
    """Microseconds per row of ONNX Runtime alone, one thread, by batch size: the best of 30."""
    session = measuring.raw_session(graph, threads=1)
    result = {}
    for rows in _BATCHES:
        image = np.random.default_rng(0).integers(0, 256, (rows, 28, 28, 1), np.uint8)
        times = []
        for _ in range(30):
            started_s = time.perf_counter()
            for _ in range(10):
                session.run(None, {"image": image})
            times.append((time.perf_counter() - started_s) / 10)
        result[rows] = min(times) / rows * 1e6
    return result


def measure_server(models: Path, transport: str) -> list[Measurement]:
    """Every shape of load against one server process."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), np.uint8)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(models, ["lenet5"], "--transport", transport) as server,
    ):
        body = Path(folder) / "body"
        body.write_bytes(measuring.tensor_body("lenet5", "UINT8", picture))
        measuring.send(server, Load(MODEL_INFER, body, 8, 16), 2000)  # warm-up
        return [measure(server, transport, Load(MODEL_INFER, body, *shape)) for shape in SHAPES]


def measure(server: Server, transport: str, load: Load) -> Measurement:
    """One shape of load."""
    outcome = measuring.measure(server, load, trial_calls=400 * load.connections, seconds=_SECONDS)
    return Measurement(
        transport=transport,
        connections=load.connections,
        streams=load.streams,
        calls_per_s=outcome.calls_per_s,
        p50_ms=outcome.p50_ms,
        p99_ms=outcome.p99_ms,
        cpu_us=outcome.cpu_us,
        mean_batch_rows=outcome.mean_batch_rows,
    )


def report(raw: dict[int, float], measurements: list[Measurement]) -> None:
    """Medians over the rounds, the spread of the throughput behind them."""
    best = min(raw, key=lambda rows: raw[rows])
    console.print(machine(), highlight=False)
    console.print(f"raw ONNX Runtime, 1 thread: {1e6 / raw[best]:,.0f} rows/s in batches of {best}")
    table = Table(
        "transport", "in flight", "connections", "calls/s", "min-max", "p50 ms", "p99 ms",
        "batch", "CPU µs/call", "outside session",
    )  # fmt: skip
    for transport in TRANSPORTS:
        for connections, streams in SHAPES:
            runs = [
                run
                for run in measurements
                if (run.transport, run.connections, run.streams)
                == (transport, connections, streams)
            ]
            table.add_row(*row(raw, runs))
    console.print(table)
    fast, plain = (
        statistics.median(
            run.calls_per_s
            for run in measurements
            if run.transport == transport and (run.connections, run.streams) == (8, 16)
        )
        for transport in TRANSPORTS
    )
    console.print(f"completion-queue / public at 128 in flight: {fast / plain:.2f}")


def row(raw: dict[int, float], runs: list[Measurement]) -> list[str]:
    """One line of the table."""

    def median(name: str) -> float:
        return float(statistics.median(getattr(run, name) for run in runs))

    rates = [run.calls_per_s for run in runs]
    batch = median("mean_batch_rows")
    nearest = min(raw, key=lambda rows: abs(rows - batch))
    return [
        runs[0].transport,
        str(runs[0].in_flight),
        str(runs[0].connections),
        f"{median('calls_per_s'):,.0f}",
        f"{min(rates):,.0f}-{max(rates):,.0f}",
        f"{median('p50_ms'):.2f}",
        f"{median('p99_ms'):.2f}",
        f"{batch:.1f}",
        f"{median('cpu_us'):.0f}",
        f"{median('cpu_us') - raw[nearest]:.0f}",
    ]


if __name__ == "__main__":
    main()
