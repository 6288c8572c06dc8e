"""What the benchmarks share: a server process, load from h2load, raw ONNX Runtime, the machine's facts.

The load generator is one process, `h2load` (Debian: nghttp2-client), with a prepared request; nothing
is pinned to a core. A run counts only if the server answered each of its calls with OK.
"""

import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.pb import inference_pb2 as pb
from weir import Client

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_ANSWERED, _BATCHES_RUN = "weir_requests_total", "weir_batches_total"
_COMPUTED = "weir_compute_seconds_sum"
_COUNTED_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and how many at once.

    Attributes:
        path: the method.
        body: a file with the request, framed as gRPC sends it.
        connections: of the generator.
        streams: calls open on each connection.
    """

    path: str
    body: Path
    connections: int
    streams: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of the load generator against one server.

    Attributes:
        cpu_us: the server's CPU time a call.
        compute_us: time in runs of the model a call, by the wall clock.
        generator_cpu_us: the generator's CPU time a call.
    """

    seconds: float
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    mean_batch_rows: float
    compute_us: float
    generator_cpu_us: float


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

    def answered(self, expected: float) -> float:
        """Calls answered OK so far; a batch is counted a moment after its answers were sent."""
        end_s = time.perf_counter() + _COUNTED_WITHIN_S
        while (count := self.total(_ANSWERED, '"OK"')) < expected and time.perf_counter() < end_s:
            pass
        return count

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(models: Path, names: Sequence[str], *flags: str) -> Iterator[Server]:
    """`weir serve` on the CPU as its own process, once these models are ready."""
    command = [
        sys.executable, "-m", "server", str(models), *flags,
        "--port", "0", "--metrics-port", "0", "--provider", "cpu", "--log-level", "warning",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            places = dict(word.split("=") for word in line.split() if "=" in word)
            with Client(places["grpc"]) as client:
                for name in names:
                    client.wait_ready(name)
            yield Server(process.pid, places["grpc"], places["metrics"])
        finally:
            process.terminate()


def require_h2load() -> None:
    """Leave with a hint if there is no load generator."""
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: install nghttp2-client")


def tensor_body(model: str, datatype: str, tensor: NDArray[Any]) -> bytes:
    """A `ModelInferRequest` with one input, `image`, framed."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype=datatype, shape=tensor.shape)
    request.raw_input_contents.append(tensor.tobytes())
    return framed(request.SerializeToString())


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it."""
    return struct.pack(">BI", 0, len(message)) + message


def send(server: Server, load: Load, calls: int) -> list[float]:
    """So many calls; the latency of each in milliseconds."""
    with tempfile.NamedTemporaryFile() as log:
        command = [
            "h2load", "-n", str(calls), "-c", str(load.connections), "-m", str(load.streams),
            "-d", str(load.body), "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"--log-file={log.name}", f"http://{server.target}{load.path}",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = Path(log.name).read_text().splitlines()
    return [int(line.split("\t")[2]) / 1000 for line in lines]


def measure(server: Server, load: Load, *, trial_calls: int, seconds: float) -> Outcome:
    """A short run to learn the rate, then one of about so many seconds."""
    expected = server.answered(0) + trial_calls
    started_s = time.perf_counter()
    send(server, load, trial_calls)
    rate = trial_calls / (time.perf_counter() - started_s)
    ok = server.answered(expected)
    if ok != expected:
        sys.exit(f"run void: of {trial_calls} trial calls {expected - ok:.0f} were not answered OK")
    calls = max(load.connections * load.streams, int(rate * seconds))
    return _measure(server, load, calls // load.connections * load.connections, ok)


def _measure(server: Server, load: Load, calls: int, ok: float) -> Outcome:
    batches = server.total(_BATCHES_RUN)
    computed_s, generator_s, cpu_s = server.total(_COMPUTED), _children_cpu_s(), server.cpu_s()
    started_s = time.perf_counter()
    latencies_ms = send(server, load, calls)
    seconds = time.perf_counter() - started_s
    cpu_s = server.cpu_s() - cpu_s
    generator_s = _children_cpu_s() - generator_s
    answered = server.answered(ok + calls) - ok
    if answered != calls:
        sys.exit(f"run void: {calls} calls were sent, {answered:.0f} answered OK")
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
    return Outcome(
        seconds=seconds,
        calls_per_s=calls / seconds,
        p50_ms=float(p50_ms),
        p99_ms=float(p99_ms),
        cpu_us=cpu_s / calls * 1e6,
        mean_batch_rows=calls / (server.total(_BATCHES_RUN) - batches),
        compute_us=(server.total(_COMPUTED) - computed_s) / calls * 1e6,
        generator_cpu_us=generator_s / calls * 1e6,
    )


def _children_cpu_s() -> float:
    """CPU time of ended children: the generator's runs, for the server has not ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def raw_session(graph: Path, threads: int) -> ort.InferenceSession:
    """A graph in ONNX Runtime alone, with the options of `server.session`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def busy_cores(seconds: float = 1.0) -> float:
    """How many cores the machine keeps busy at present."""
    before = _busy_s()
    time.sleep(seconds)
    return (_busy_s() - before) / seconds


def _busy_s() -> float:
    """CPU time of all cores so far, but for idling, waiting for disks, and being a guest twice."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, *interrupts_and_steal = fields[:8]
    return (user + nice + system + sum(interrupts_and_steal)) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """Where this was measured."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}, onnxruntime {ort.__version__}, weir {version('weir')}"
    )
