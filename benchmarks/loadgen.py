"""MLPerf's LoadGen: Weir and Triton behind one gRPC client, on one graph.

    make demo && .venv/bin/python benchmarks/loadgen.py [--model lenet5 inception-v1 tagger] \
        [--scenario SingleStream Offline Server] [--json FILE [--append]]

A sample is one call with one row: random pixels for `lenet5` and `inception-v1` (the bundles of
`make demo`), the test sentences of UD English-EWT for `tagger` (`lib/tagger.py`; needs
`WEIR_DATA`). First LoadGen's accuracy mode sends every sample once, and each logged answer is
compared with raw ONNX Runtime. Then, for each server in turn:

- `SingleStream`: one call after the other; the 90th percentile of latency.
- `Offline`: all samples in one query; the client keeps 128 calls in flight. Samples a second.
- `Server`: calls arrive as a Poisson process, however many are open. The result is the highest
  rate that LoadGen calls VALID with no call refused: its 99th percentile is within the bound. A
  trial that is INVALID is made once more, because any pause of the machine spoils it. Steps of 15 %
  from three quarters of the Offline result enclose the rate, bisection narrows it to 4 %.

Differences to a submission: a test lasts `--seconds` (MLPerf: 600), and LoadGen runs on the
server's machine. The client (`lib/loadgen_client.py`) speaks HTTP/2 itself over 8 connections,
which costs a tenth of `grpcio`; `--ceiling` measures it with empty calls. Both servers have one
session with one thread, and batches of up to 32 rows. More rivals are `weir-auto`, which chooses
its threads and sessions itself, and `triton-two-instances`.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import harness, load, loadgen, servers, triton
from benchmarks.lib.harness import Column, Rival, Run, Target, console
from benchmarks.lib.http2 import framed, messages
from benchmarks.lib.loadgen_client import OFFLINE, SCENARIOS, SERVER, SINGLE_STREAM, Trial
from benchmarks.lib.raw import are_close, raw_session
from benchmarks.lib.servers import Server
from weir.bundle.reader import MODEL
from weir.protocol import inference_pb2 as pb

Inputs = Mapping[str, NDArray[Any]]

WEIR, AUTO, TRITON, TRITON_TWO = "weir", "weir-auto", "triton", "triton-two-instances"
LENET, INCEPTION, TAGGER = MODELS = "lenet5", "inception-v1", "tagger"
LATENCY_S = {LENET: 0.015, INCEPTION: 0.05, TAGGER: 0.05}
BOUNDS = {LENET: 1.2, INCEPTION: 1.2, TAGGER: 2.5}
VALID, SAMPLES, LATENCY = "valid_per_s", "samples_per_s", "p90_ms"
COLUMNS = (
    Column("SingleStream p90 ms", LATENCY, ".2f"),
    Column("Offline samples/s", SAMPLES),
    Column("Server, VALID/s", VALID),
    Column("p99 ms there", "p99_ms", ".1f"),
    Column("client's CPU µs", "client_cpu_us", ".0f", "median"),
)
TARGETS = tuple(
    Target(VALID, f"{model}, {SERVER}", WEIR, TRITON, bound) for model, bound in BOUNDS.items()
)
_EMPTY = "/inference.GRPCInferenceService/ServerLive"
_IN_FLIGHT = 128
_MAX_ROWS = 32
_PICTURES = 512
_FIRST_SHARE = 0.75
_TRIAL_S = 2.0
_QUICK_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and for how long; `python` is the interpreter that has LoadGen."""

    python: Path
    scenarios: Sequence[str]
    seconds: float
    is_rough: bool


@dataclass(frozen=True, slots=True)
class Samples:
    """A model's requests, with its graph and its repository."""

    model: str
    models: Path
    requests: Sequence[Inputs]

    @property
    def graph(self) -> Path:
        """Version 1."""
        return self.models / self.model / "1" / MODEL

    def bodies(self, rival: str) -> list[bytes]:
        """Framed requests; Triton takes an input without axes beside the batch as [batch, 1]."""
        return [
            load.infer_body(self.model, **{name: _shaped(x, rival) for name, x in each.items()})
            for each in self.requests
        ]


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=1, can_append=True)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--rivals", nargs="+", default=[WEIR, TRITON])
    parser.add_argument("--models", type=Path, default=Path(".demo/models"), help="of pictures")
    parser.add_argument("--tagger", type=Path, default=Path(".bench/models"), help="its repository")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each of LoadGen's tests")
    parser.add_argument("--ceiling", action="store_true", help="measure only the client")
    given = harness.parse(parser)
    seconds = _QUICK_S if given.quick else given.seconds
    environment, python = harness.start(), loadgen.install(given.work)
    if given.ceiling:
        ceiling(python, seconds)
        return
    plan = Plan(python, given.scenario, seconds, is_rough=given.quick)
    runs: list[Run] = []
    for model in given.model:
        samples = samples_of(model, given.tagger if model == TAGGER else given.models)
        runs += harness.take_turns(
            [each for each in rivals(samples, given.work) if each.name in given.rivals],
            given.rounds,
            partial(measure, plan, samples),
        )
    if given.append:
        runs = harness.appended(harness.earlier(given.json), runs)
    console.print(harness.table(runs, COLUMNS))
    harness.print_targets(runs, TARGETS)
    harness.write(given.json, {**environment, "seconds": seconds}, runs)


def samples_of(model: str, models: Path) -> Samples:
    """The requests of a model; the tagger's bundle is made if it is absent."""
    if model == TAGGER:
        from benchmarks.lib import tagger  # noqa: PLC0415 - imports torch

        tagger.make_bundle(models)
        lengths = [(row[np.newaxis], np.array([len(row)])) for row in tagger.sentences()]
        return Samples(model, models, [{"tokens": row, "lengths": n} for row, n in lengths])
    samples = Samples(model, models, [])
    if not samples.graph.is_file():
        sys.exit(f"{samples.graph} is missing: run `make demo` first")
    (image,) = raw_session(samples.graph, threads=1).get_inputs()
    random = np.random.default_rng(0)
    shape = (_PICTURES, 1, *image.shape[1:])
    pictures = random.integers(0, 256, shape, np.uint8)
    return Samples(model, models, [{image.name: each} for each in pictures])


def rivals(samples: Samples, work: Path) -> list[Rival]:
    """The servers, in the order of a round."""
    names = [samples.model]
    equal = ("--threads", "1", "--instances", "1")
    triton_of = partial(triton.serving, work, samples.models, names, max_rows=_MAX_ROWS)
    return [
        Rival(WEIR, partial(servers.serving, samples.models, names, *equal)),
        Rival(AUTO, partial(servers.serving, samples.models, names)),
        Rival(TRITON, triton_of),
        Rival(TRITON_TWO, partial(triton_of, instances=2)),
    ]


class ScenarioRunner:
    """LoadGen's scenarios against one server."""

    def __init__(self, plan: Plan, samples: Samples, rival: str, server: Server) -> None:
        self._plan, self._samples = plan, samples
        self._trial = partial(
            Trial,
            target=server.target,
            path=load.MODEL_INFER,
            bodies=samples.bodies(rival),
            seconds=plan.seconds,
        )
        self._offline_per_s = 0.0

    def check(self) -> None:
        """Compare the answers of the accuracy mode with raw ONNX Runtime; exit if they differ."""
        trial = self._trial(scenario=OFFLINE, rate_per_s=1.0, in_flight=_IN_FLIGHT)
        answers = loadgen.answers(self._plan.python, trial)
        if len(answers) != len(self._samples.requests):
            sys.exit(f"expected {len(self._samples.requests)} answers, got {len(answers)}")
        session = raw_session(self._samples.graph, threads=1)
        names = [each.name for each in session.get_outputs()]
        for sample, request in enumerate(self._samples.requests):
            found = outputs_of(answers[sample])
            for name, expected in zip(names, session.run(names, dict(request)), strict=True):
                if not are_close(found[name].view(expected.dtype), expected.ravel()):
                    sys.exit(f"sample {sample}: {name}: expected {expected}, got {found[name]}")

    def measure(self, scenario: str) -> dict[str, float]:
        """The figures of a scenario."""
        if scenario == SINGLE_STREAM:
            return self._single_stream()
        if scenario == OFFLINE:
            return self._offline()
        return self._server()

    def _single_stream(self) -> dict[str, float]:
        found = loadgen.run(self._plan.python, self._trial(scenario=SINGLE_STREAM, in_flight=1))
        latency_ns = found.figures["90.00 percentile latency (ns)"]
        return {LATENCY: latency_ns / 1e6, "client_cpu_us": _client_cpu_us(found)}

    def _offline(self) -> dict[str, float]:
        trial = partial(self._trial, scenario=OFFLINE, in_flight=_IN_FLIGHT)
        short = loadgen.run(self._plan.python, trial(rate_per_s=1000, seconds=_TRIAL_S))
        rate_per_s = short.figures["Samples per second"]
        found = loadgen.run(self._plan.python, trial(rate_per_s=rate_per_s))
        self._offline_per_s = found.figures["Samples per second"]
        return {SAMPLES: self._offline_per_s, "client_cpu_us": _client_cpu_us(found)}

    def _server(self) -> dict[str, float]:
        if not self._offline_per_s:
            self._offline()
        best: dict[str, float] = {}

        def is_valid(rate_per_s: float) -> bool:
            return trial_is_valid(rate_per_s) or trial_is_valid(rate_per_s)

        def trial_is_valid(rate_per_s: float) -> bool:
            latency_s = LATENCY_S[self._samples.model]
            trial = self._trial(scenario=SERVER, rate_per_s=rate_per_s, latency_s=latency_s)
            found = loadgen.run(self._plan.python, trial)
            p99_ms = found.figures["99.00 percentile latency (ns)"] / 1e6
            word = "VALID" if found.is_valid else "INVALID"
            refused = f", {found.report.refused} refused" if found.report.refused else ""
            console.print(f"[dim]  {rate_per_s:,.0f}/s: {word}, p99 {p99_ms:.1f} ms{refused}[/]")
            if found.is_valid:
                best.update({"p99_ms": p99_ms, "client_cpu_us": _client_cpu_us(found)})
            return found.is_valid

        start = _FIRST_SHARE * self._offline_per_s
        return {VALID: loadgen.highest_valid(is_valid, start, is_rough=self._plan.is_rough), **best}


def measure(
    plan: Plan, samples: Samples, rival: Rival, server: Server
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Check the answers, then every scenario."""
    runner = ScenarioRunner(plan, samples, rival.name, server)
    runner.check()
    for scenario in sorted(plan.scenarios, key=SCENARIOS.index):
        yield f"{samples.model}, {scenario}", runner.measure(scenario)


def ceiling(python: Path, seconds: float) -> None:
    """The client's own rate and cost: empty calls, answered by Weir without a model."""
    with tempfile.TemporaryDirectory() as models, servers.serving(Path(models), []) as server:
        trial = partial(Trial, target=server.target, path=_EMPTY, bodies=[framed(b"")])
        offline = trial(scenario=OFFLINE, seconds=seconds, rate_per_s=20_000, in_flight=_IN_FLIGHT)
        found = loadgen.run(python, offline)
        console.print(
            f"Offline, empty calls: {found.figures['Samples per second']:,.0f}/s, "
            f"{_client_cpu_us(found):.0f} µs of the client's CPU a call"
        )


def outputs_of(answer: bytes) -> dict[str, NDArray[np.uint8]]:
    """The outputs of a framed answer as bytes, by name."""
    (message,) = messages(answer)
    response = pb.ModelInferResponse.FromString(message)
    return {
        output.name: np.frombuffer(raw, np.uint8)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _shaped(array: NDArray[Any], rival: str) -> NDArray[Any]:
    return array[:, np.newaxis] if rival in (TRITON, TRITON_TWO) and array.ndim == 1 else array


def _client_cpu_us(found: loadgen.Verdict) -> float:
    return found.report.cpu_s / max(1, found.report.answered + found.report.refused) * 1e6


if __name__ == "__main__":
    main()
