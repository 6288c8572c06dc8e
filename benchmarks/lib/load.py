"""Load for any server of the Open Inference Protocol, and its result.

There are two generators, each a process of its own and not pinned to a core. `h2load` (Debian:
nghttp2-client) repeats one body at the highest rate. `lib/load_generator.py` sends different bodies
at given times. A run counts only if the server answered every call with OK. For h2load the server's
counter shows that, for the other generator the answers do.
"""

import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.lib import load_generator
from benchmarks.lib.http2 import framed
from benchmarks.lib.load_generator import Record, Schedule
from benchmarks.lib.servers import Server
from weir.bench.plan import arrival_times_s
from weir.bench.tally import percentile
from weir.client.rpc import infer_request

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Load:
    """A load of h2load: the file `body` holds the framed request; `streams` calls a connection.

    `is_http1` sends it as a POST of HTTP/1.1 to the server's HTTP address, one call a connection.
    """

    path: str
    body: Path
    connections: int
    streams: int
    headers: Sequence[str] = ("content-type: application/grpc", "te: trailers")
    is_http1: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """A generator's measurements; `seconds` last from the first call to the last answer."""

    latencies_ms: Sequence[float]
    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a load generator against one server.

    Attributes:
        cpu_us: the server's CPU time per call.
        compute_us: wall-clock time in runs of the model per call.
        in_session: share of the time with a run of the model.
        generator_cpu_us: the generator's CPU time per call.
    """

    seconds: float
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    mean_batch_rows: float
    compute_us: float
    in_session: float
    generator_cpu_us: float


def require_h2load() -> None:
    """Exit with a hint if h2load is not installed."""
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: install nghttp2-client")


def infer_body(model: str, **inputs: NDArray[Any]) -> bytes:
    """A framed `ModelInferRequest`."""
    return framed(infer_request(model, inputs).SerializeToString())


def send(server: Server, load: Load, calls: int) -> Sent:
    """Send a number of calls by h2load."""
    with tempfile.NamedTemporaryFile() as log:
        command = [
            "h2load", "-n", str(calls), "-c", str(load.connections), "-m", str(load.streams),
            "-d", str(load.body), *(f"--header={each}" for each in load.headers),
            *(["--h1"] if load.is_http1 else []), f"--log-file={log.name}",
            f"http://{server.http if load.is_http1 else server.target}{load.path}",
        ]  # fmt: skip
        cpu_s, started_s = _children_cpu_s(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds, cpu_s = time.perf_counter() - started_s, _children_cpu_s() - cpu_s
        lines = Path(log.name).read_text().splitlines()
    return Sent([int(line.split("\t")[2]) / 1000 for line in lines], seconds, cpu_s)


def send_varied(schedule: Schedule) -> Record:
    """Make the calls of a schedule; exit if a call is not answered, as the run is then void."""
    record = send_open(schedule)
    if refused := sum(not answer for answer in record.answers):
        sys.exit(f"run void: {refused} of {len(schedule.order)} calls were not answered OK")
    return record


def send_open(schedule: Schedule) -> Record:
    """Make the calls of a schedule; rejected calls are allowed."""
    command = [sys.executable, "-c", f"from {load_generator.__name__} import main; main()"]
    done = subprocess.run(command, input=pickle.dumps(schedule), stdout=subprocess.PIPE, check=True)
    record: Record = pickle.loads(done.stdout)  # noqa: S301 - from our own process
    return record


def seen(record: Record) -> Sent:
    """The measurements of a record."""
    latencies_ms = (record.ended_s - record.began_s) * 1000
    return Sent(latencies_ms.tolist(), float(record.ended_s.max()), record.cpu_s)


def due_times_s(rate_per_s: float, calls: int, seed: int) -> list[float]:
    """When each call of a Poisson process is due; the same seed gives the same times."""
    return list(islice(arrival_times_s(rate_per_s, seed), calls))


def measure(server: Server, load: Load, *, trial_calls: int, seconds: float) -> Outcome:
    """A short run of h2load measures the rate, then one of about `seconds` is measured."""
    expected = server.answered(0) + trial_calls
    rate = trial_calls / send(server, load, trial_calls).seconds
    if (ok := server.answered(expected)) != expected:
        sys.exit(f"run void: of {trial_calls} trial calls {expected - ok:.0f} were not answered OK")
    calls = max(load.connections * load.streams, int(rate * seconds))
    calls = calls // load.connections * load.connections
    return watch(server, calls, lambda: send(server, load, calls))


def watch(server: Server, calls: int, sending: Callable[[], Sent]) -> Outcome:
    """Send calls between two readings of the server's counters; exit if the counts disagree."""
    ok, batches, computed_s = server.answered(0), server.batches(), server.computed_s()
    cpu_s = server.cpu_s()
    sent = sending()
    cpu_s = server.cpu_s() - cpu_s
    answered = server.answered(ok + calls) - ok
    if answered != calls:
        sys.exit(f"run void: {calls} calls were sent, {answered:.0f} answered OK")
    computed_s = server.computed_s() - computed_s
    return Outcome(
        seconds=sent.seconds,
        calls_per_s=calls / sent.seconds,
        p50_ms=percentile(sent.latencies_ms, 50),
        p99_ms=percentile(sent.latencies_ms, 99),
        cpu_us=cpu_s / calls * 1e6,
        mean_batch_rows=calls / (server.batches() - batches),
        compute_us=computed_s / calls * 1e6,
        in_session=computed_s / sent.seconds,
        generator_cpu_us=sent.cpu_s / calls * 1e6,
    )


def _children_cpu_s() -> float:
    """CPU time of ended child processes: the generator's, since the server still runs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
