"""How fast is one picture a call? Raw ONNX Runtime beside Weir on both of its transports.

    make demo && .venv/bin/python benchmarks/lenet.py [--models .demo/models] [--json FILE]

Load comes from `h2load` (Debian: nghttp2-client) with a prepared LeNet-5 request; every answer is
counted on the server as OK, or the run is void. The transports take turns, round by round.
CPU outside the session is the server's CPU time per call less what raw ONNX Runtime needs for a row
at the mean batch size of that run.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from server.pb import inference_pb2 as pb
from weir import Client

TRANSPORTS = ("completion-queue", "public")
# Connections and calls open on each.
SHAPES = ((1, 1), (8, 4), (1, 128), (8, 16), (16, 8))
ROUNDS = 3
_SECONDS = 3.0
_ANSWERED, _BATCHES_RUN = "weir_requests_total", "weir_batches_total"
_PATH = "/inference.GRPCInferenceService/ModelInfer"
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
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: install nghttp2-client")
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
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
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
    with tempfile.TemporaryDirectory() as folder, serving(models, transport) as server:
        body = Path(folder) / "body"
        body.write_bytes(request_body())
        load(server, body, 8, 16, 2000)  # warm-up
        return [measure(server, transport, body, *shape) for shape in SHAPES]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server process."""

    pid: int
    target: str
    metrics: str

    def total(self, metric: str, having: str = "") -> float:
        """The sum of a counter's samples, of those that hold a text."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith(metric) and having in line
        )

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(models: Path, transport: str) -> Iterator[Server]:
    """`weir serve` as its own process."""
    command = [
        sys.executable, "-m", "server", str(models), "--transport", transport,
        "--port", "0", "--metrics-port", "0", "--provider", "cpu", "--log-level", "warning",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            places = dict(word.split("=") for word in line.split() if "=" in word)
            with Client(places["grpc"]) as client:
                client.wait_ready("lenet5")
            yield Server(process.pid, places["grpc"], places["metrics"])
        finally:
            process.terminate()


def request_body() -> bytes:
    """A `ModelInferRequest` with one picture, framed as gRPC sends it."""
    request = pb.ModelInferRequest(model_name="lenet5")
    request.inputs.add(name="image", datatype="UINT8", shape=(1, 28, 28, 1))
    picture = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    request.raw_input_contents.append(picture.tobytes())
    message = request.SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def load(server: Server, body: Path, connections: int, streams: int, calls: int) -> list[float]:
    """So many calls; the latency of each in milliseconds."""
    with tempfile.NamedTemporaryFile() as log:
        command = [
            "h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams),
            "-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"--log-file={log.name}", f"http://{server.target}{_PATH}",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = Path(log.name).read_text().splitlines()
    return [int(line.split("\t")[2]) / 1000 for line in lines]


def measure(
    server: Server, transport: str, body: Path, connections: int, streams: int
) -> Measurement:
    """One shape of load: a short run to learn the rate, then one of a few seconds."""
    started_s = time.perf_counter()
    load(server, body, connections, streams, 400 * connections)
    rate = 400 * connections / (time.perf_counter() - started_s)
    calls = max(400, int(rate * _SECONDS)) // connections * connections
    ok, batches = server.total(_ANSWERED, '"OK"'), server.total(_BATCHES_RUN)
    cpu_s = server.cpu_s()
    started_s = time.perf_counter()
    latencies_ms = load(server, body, connections, streams, calls)
    seconds = time.perf_counter() - started_s
    cpu_s = server.cpu_s() - cpu_s
    answered = server.total(_ANSWERED, '"OK"') - ok
    if answered != calls:
        sys.exit(f"run void: {calls} calls were sent, {answered:.0f} answered OK")
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
    return Measurement(
        transport=transport,
        connections=connections,
        streams=streams,
        calls_per_s=calls / seconds,
        p50_ms=float(p50_ms),
        p99_ms=float(p99_ms),
        cpu_us=cpu_s / calls * 1e6,
        mean_batch_rows=calls / (server.total(_BATCHES_RUN) - batches),
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


def machine() -> str:
    """Where this was measured."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}, onnxruntime {ort.__version__}, weir {version('weir')}"
    )


if __name__ == "__main__":
    main()
