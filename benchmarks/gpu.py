"""CPU against CUDA, FP16 against FP32, and what changing batch sizes cost; in under two minutes.

    .venv/bin/python -m benchmarks.gpu [--provider cuda] [--seconds 1.0] [--json FILE]

`make test-gpu` runs it after the tests of the provider. Nothing is downloaded: the networks have
random weights, and the load generator is `weir bench`'s. `--provider cpu` is a trial of the script
on a machine without CUDA: it then measures the CPU alone. Three questions:

- Throughput: a server of all networks on the CPU, then one on CUDA. Calls of one row, 1 and 128 in
  flight; memory of the process and of the device. FP16 runs on CUDA alone.
- Batch sizes: Inception v1 in raw ONNX Runtime with sizes from 1 to 32 in random order, as a server
  has them, for each `cudnn_conv_algo_search`. `changing` runs each size as it comes. `padded` adds
  rows up to 32. `sessions` adds rows up to a power of two, and has a session for each. A verdict
  names the fastest, by p99.
- Decoder steps: with the rows' state copied in each step, and with IO binding.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.lib import cuda_libraries, harness
from benchmarks.lib.harness import Column, Rival, Run, console
from benchmarks.lib.servers import Server, serving
from benchmarks.lib.untrained import publish_untrained
from benchmarks.memory import resident_mib
from weir.bench.generator import run as run_load
from weir.bench.plan import Plan
from weir.bench.tally import summarise
from weir.bundle import reader
from weir.client import rpc
from weir.server.errors import ProviderMissing
from weir.server.repository import loader
from weir.server.runtime.session import CUDA_OPTIONS, PROVIDERS, Session, choose_provider

Array = NDArray[Any]

NAMES = ("lenet5", "alexnet", "inception-v1", "question", "tagger", "stress", "pronounce")
FP16 = ("lenet5", "alexnet", "inception-v1", "question")
IN_FLIGHT = (1, 128)
CONVOLUTIONS = "inception-v1"
SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
MOST_ROWS = 32
STEP_ROWS = (1, 8, 32)
_WARM_UP_S = 0.3
_LEAST_RUNS = 5
_LOAD_PROCESSES = max(1, min(4, (os.cpu_count() or 1) // 4))

LATENCY = (
    Column("p50, ms", "p50_ms", ".2f", "median"),
    Column("p99, ms", "p99_ms", ".2f", "median"),
)
THROUGHPUT = (
    Column("calls/s", "calls_per_s", ",.0f", "median"),
    *LATENCY,
    Column("memory, MiB", "host_mib", ",.0f", "median"),
    Column("device, MiB", "device_mib", ",.0f", "median"),
)
SIZES = (Column("rows/s", "rows_per_s", ",.0f", "median"), *LATENCY)
STEPS = (Column("µs a step", "step_us", ".1f", "median"),)


def main() -> None:
    """Measure, print tables and verdicts, and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("--provider", choices=list(PROVIDERS), default="cuda")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case")
    given = harness.parse(parser)
    try:
        provider = choose_provider(given.provider)
    except ProviderMissing as error:
        console.print(f"skipped: {error}")
        return
    seconds = 0.1 if given.quick else given.seconds
    os.environ[cuda_libraries.VARIABLE] = cuda_libraries.library_path()
    environment = {**harness.start(), "device": device_name() if provider == "cuda" else "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        publish(models, with_fp16=provider == "cuda")
        served = harness.take_turns(
            [
                Rival(each, partial(start, models, each))
                for each in dict.fromkeys(("cpu", provider))
            ],
            given.rounds,
            lambda rival, server: throughput(models, rival.name, server, seconds),
        )
        sizes = list(batch_sizes(models / CONVOLUTIONS / "1", provider, seconds))
        steps = list(decoder_steps(models / "pronounce" / "1", provider, seconds))
    console.print(harness.table(served, THROUGHPUT, title=str(environment["device"])))
    print_gains(served, provider)
    console.print(harness.table(sizes, SIZES, title=f"{CONVOLUTIONS}, 1 to {MOST_ROWS} rows"))
    console.print(verdict_on_sizes(sizes))
    console.print(harness.table(steps, STEPS, title="decoder step of pronounce"))
    console.print(verdict_on_steps(steps))
    harness.write(given.json, environment, [*served, *sizes, *steps])


def publish(models: Path, *, with_fp16: bool) -> None:
    """Publish the networks; those in FP16 under names of their own."""
    for name in NAMES:
        publish_untrained(name, models)
    for name in FP16 if with_fp16 else ():
        publish_untrained(name, models.parent / "fp16", "fp16")
        (models.parent / "fp16" / name).rename(models / f"{name}-fp16")


def served_names(models: Path, provider: str) -> list[str]:
    """The models that a server on this provider serves."""
    names = sorted(each.name for each in models.iterdir())
    return [name for name in names if provider == "cuda" or not name.endswith("-fp16")]


def start(models: Path, provider: str) -> Any:
    """A server of all models on a provider."""
    return serving(models, served_names(models, provider), provider=provider)


def throughput(
    models: Path, provider: str, server: Server, seconds: float
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Closed loops of single rows, and at the end the memory of the server and of the device."""
    for name in served_names(models, provider):
        golden = reader.read(models / name / "1").golden()
        if golden is None:
            raise ValueError(f"{name}: expected recorded inputs, got none")
        rows = {each: array[:1] for each, array in golden.inputs.items()}
        call = rpc.infer(rpc.infer_request(name, rows))
        for in_flight in IN_FLIGHT:
            plan = Plan(
                target=server.target,
                path=call.path,
                body=call.body,
                concurrency=in_flight,
                connections=min(4, in_flight),
                duration_s=seconds,
                warmup_s=_WARM_UP_S,
            )
            tally = run_load(plan, min(_LOAD_PROCESSES, in_flight))
            summary = summarise(tally, duration_s=seconds, rows=1)
            if summary.errors or not summary.answered:
                raise RuntimeError(f"{name} on {provider}: calls failed: {summary.errors}")
            yield (
                f"{name}, {in_flight} in flight",
                {
                    "calls_per_s": summary.calls_per_s,
                    "p50_ms": summary.latency_s["p50"] * 1000,
                    "p99_ms": summary.latency_s["p99"] * 1000,
                },
            )
    memory = {"host_mib": resident_mib(server.pid)}
    if provider == "cuda":
        memory["device_mib"] = float(nvidia_smi("memory.used"))
    yield "all models loaded", memory


def batch_sizes(bundle: Path, provider: str, seconds: float) -> Iterator[Run]:
    """Runs of random sizes, by search and by what is done about the sizes."""
    read = reader.read(bundle)
    golden = read.golden()
    if golden is None:
        raise ValueError(f"{bundle}: expected recorded inputs, got none")
    rows = {name: array[np.arange(MOST_ROWS) % len(array)] for name, array in golden.inputs.items()}
    for search in SEARCHES if provider == "cuda" else ("no search",):
        ways: dict[str, Callable[[int], int]] = {
            "changing": lambda size: size,
            "padded": lambda _: MOST_ROWS,
            "sessions": lambda size: 1 << (size - 1).bit_length(),
        }
        for way, padded_size in ways.items():
            sessions = SizedSessions(read.model, provider, search, is_shared=way != "sessions")
            for size in range(1, MOST_ROWS + 1):
                sessions.prepare(padded_size(size), rows)
            yield Run(search, way, 0, sized_runs(sessions, padded_size, rows, seconds))


class SizedSessions:
    """Raw sessions of one graph: one for all sizes, or one for each."""

    def __init__(self, graph: bytes, provider: str, search: str, *, is_shared: bool) -> None:
        options = {**CUDA_OPTIONS, "cudnn_conv_algo_search": search} if provider == "cuda" else {}
        self._make = partial(
            ort.InferenceSession,
            graph,
            _session_options(),
            providers=[PROVIDERS[provider]],
            provider_options=[options],
        )
        self._is_shared = is_shared
        self._sessions: dict[int, ort.InferenceSession] = {}

    def prepare(self, size: int, rows: Mapping[str, Array]) -> None:
        """Make the session of a size that has none, and run it once."""
        key = 0 if self._is_shared else size
        if key not in self._sessions:
            self._sessions[key] = self._make()
            self.run(size, rows)

    def run(self, size: int, rows: Mapping[str, Array]) -> None:
        """Run the first rows."""
        session = self._sessions[0 if self._is_shared else size]
        session.run(None, {name: array[:size] for name, array in rows.items()})


def sized_runs(
    sessions: SizedSessions,
    padded_size: Callable[[int], int],
    rows: Mapping[str, Array],
    seconds: float,
) -> dict[str, float]:
    """Real rows a second, and the time of a run, over random sizes."""
    sizes = np.random.default_rng(0).integers(1, MOST_ROWS + 1, 100_000).tolist()
    times_s: list[float] = []
    started_s = time.perf_counter()
    while time.perf_counter() - started_s < seconds or len(times_s) < _LEAST_RUNS:
        begun_s = time.perf_counter()
        sessions.run(padded_size(sizes[len(times_s)]), rows)
        times_s.append(time.perf_counter() - begun_s)
    answered = sum(sizes[: len(times_s)])
    return {
        "rows_per_s": answered / sum(times_s),
        "p50_ms": float(np.percentile(times_s, 50)) * 1000,
        "p99_ms": float(np.percentile(times_s, 99)) * 1000,
    }


def decoder_steps(bundle: Path, provider: str, seconds: float) -> Iterator[Run]:
    """The time of a step whose rows stay: its state copied each time, or kept on the device."""
    _, files = loader.read(bundle)
    if files.contract is None or files.contract.decoding is None or files.golden is None:
        raise ValueError(f"{bundle}: expected an encoder-decoder with recorded inputs")
    states = files.contract.decoding.from_step
    previous, kept = files.contract.decoding.previous, frozenset(states.values())
    session = Session(files.graph, provider=provider, threads=1, external=files.external)
    for rows in STEP_ROWS:
        recorded = files.golden.inputs
        inputs = {name: array[np.arange(rows) % len(array)] for name, array in recorded.items()}
        bound = {
            name: array if name == previous else session.place(array)
            for name, array in inputs.items()
        }

        def copied_step(inputs: dict[str, Array] = inputs) -> None:
            outputs = session.run(inputs)
            inputs.update({name: outputs[output] for name, output in states.items()})

        def bound_step(inputs: dict[str, Any] = bound) -> None:
            outputs = session.run_bound(inputs, kept)
            inputs.update({name: outputs.kept[output] for name, output in states.items()})

        for way, step in (("copied", copied_step), ("IO binding", bound_step)):
            yield Run(way, f"{rows} rows", 0, {"step_us": mean_us(step, seconds / 2)})


def mean_us(step: Callable[[], None], seconds: float) -> float:
    """The mean time of a step, after a tenth of the time as warm-up."""
    for share in (0.1, 1.0):
        steps, started_s = 0, time.perf_counter()
        while (elapsed_s := time.perf_counter() - started_s) < share * seconds or not steps:
            step()
            steps += 1
    return elapsed_s / steps * 1e6


def print_gains(runs: Sequence[Run], provider: str) -> None:
    """Print CUDA against CPU by network and load, and FP16 against FP32."""
    rates = {(run.rival, run.case): run.figures.get("calls_per_s", 0.0) for run in runs}
    for in_flight in IN_FLIGHT:
        for name in NAMES:
            case = f"{name}, {in_flight} in flight"
            half = (provider, f"{name}-fp16, {in_flight} in flight")
            print_gain(f"{case}: {provider} / cpu", rates, (provider, case), ("cpu", case))
            print_gain(f"{case}: FP16 / FP32", rates, half, (provider, case))


def print_gain(
    what: str, rates: Mapping[tuple[str, str], float], of: tuple[str, str], to: tuple[str, str]
) -> None:
    """Print the ratio of two rates, if both were measured."""
    if of != to and rates.get(of) and rates.get(to):
        console.print(f"calls/s, {what} {rates[of] / rates[to]:.2f}", highlight=False)


def verdict_on_sizes(runs: Sequence[Run]) -> str:
    """The search and the way with the least p99, beside what the server does."""
    best = min(runs, key=lambda run: run.figures["p99_ms"])
    served = CUDA_OPTIONS["cudnn_conv_algo_search"]
    own = next((run for run in runs if (run.rival, run.case) == (served, "changing")), runs[0])
    return (
        f"batch sizes: least p99 with {best.rival}, {best.case}: "
        f"{best.figures['p99_ms']:.2f} ms at {best.figures['rows_per_s']:,.0f} rows/s; "
        f"the server's {own.rival}, {own.case}: "
        f"{own.figures['p99_ms']:.2f} ms at {own.figures['rows_per_s']:,.0f} rows/s"
    )


def verdict_on_steps(runs: Sequence[Run]) -> str:
    """The gain of IO binding by number of rows."""
    times = {(run.rival, run.case): run.figures["step_us"] for run in runs}
    gains = [
        f"{rows} rows {times['copied', f'{rows} rows'] / times['IO binding', f'{rows} rows']:.2f}"
        for rows in STEP_ROWS
    ]
    return f"decoder steps: copied / IO binding: {', '.join(gains)}"


def device_name() -> str:
    """The GPU, its driver and its memory."""
    return nvidia_smi("name,driver_version,memory.total")


def nvidia_smi(query: str) -> str:
    """Values of the first GPU, as NVIDIA's program prints them."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return done.stdout.splitlines()[0]


def _session_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


if __name__ == "__main__":
    main()
