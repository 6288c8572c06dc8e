"""How cost grows with connections, payload, models and sequence length; a picture of each.

    make demo && .venv/bin/python benchmarks/growth.py [--only connections payload models lengths] \
        [--json FILE [--append]] [--pictures docs/pictures]

- connections: LeNet-5 under `h2load`, one call in flight on each of 1 to 500 connections.
- payload: requests of 1 KB to 1 MB to a graph that returns the largest byte of a row
  (`lib/payload.py`), one in flight, and eight in flight on eight connections.
- models: a repository with 1 to 100 copies of LeNet-5: time from the start of the process until
  every model is ready, memory and threads then.
- lengths: the GRU `stress` with rows of 1 to 512 phonemes, one in flight, and 32 in flight.

With `--pictures`, each question that was measured is drawn into that folder as `growth-*.png`.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import charts, harness, load, payload, servers
from benchmarks.lib.harness import Column, Rival, Run, console
from benchmarks.lib.load import MODEL_INFER, Load, Outcome
from benchmarks.lib.servers import Server

WEIR, PICTURE, SEQUENCE = "weir", "lenet5", "stress"
CONNECTIONS = (1, 8, 32, 128, 250, 500)
PAYLOAD_KB = (1, 4, 16, 64, 128, 256, 512, 1024)
MODELS = (1, 10, 30, 100)
LENGTHS = (1, 4, 16, 64, 256, 512)
_MANY_STREAMS = 32
_CONNECTIONS_OF_PAYLOAD = 8
_TRIAL_CALLS = 200

Figures = Iterator[tuple[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and for how long; `models` holds the bundles of `make demo`."""

    models: Path
    rounds: int
    seconds: float
    is_quick: bool

    def some(self, values: Sequence[int]) -> Sequence[int]:
        """All values, or the two ends of a quick run."""
        return (values[0], values[-1]) if self.is_quick else values


@dataclass(frozen=True, slots=True)
class Question:
    """A cost over a size: the figure of the size with its title, and the costs with theirs."""

    measure: Callable[[Plan], list[Run]]
    x: tuple[str, str]
    costs: Mapping[str, str]
    is_logarithmic: bool = False


def main() -> None:
    """Measure, print tables, draw and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3, can_append=True)
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="of growth-*.png")
    given = harness.parse(parser)
    load.require_h2load()
    if missing := [name for name in (PICTURE, SEQUENCE) if not (given.models / name).exists()]:
        sys.exit(f"{given.models / missing[0]} is missing: run `make demo` first")
    environment = harness.start()
    plan = Plan(given.models, given.rounds, 0.5 if given.quick else given.seconds, given.quick)
    runs: list[Run] = []
    for name in given.only:
        runs += QUESTIONS[name].measure(plan)
    if given.append:
        runs = harness.appended(harness.earlier(given.json), runs)
    for name, question in QUESTIONS.items():
        if found := [run for run in runs if question.x[0] in run.figures]:
            columns = [Column(title, figure, ",.6g") for figure, title in question.costs.items()]
            console.print(harness.table(found, columns, title=name))
            if given.pictures:
                picture = given.pictures / f"growth-{name}.png"
                charts.growth(
                    picture,
                    found,
                    rival=WEIR,
                    x=question.x,
                    figures=question.costs,
                    is_logarithmic=question.is_logarithmic,
                )
    harness.write(given.json, environment, runs)


def over_connections(plan: Plan) -> list[Run]:
    """Calls a second, CPU time and memory by connections."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), np.uint8)

    def measure(_: Rival, server: Server) -> Figures:
        for connections in plan.some(CONNECTIONS):
            outcome = _load(plan, server, PICTURE, {"image": picture}, (connections, 1))
            yield (
                f"{connections} connections",
                {
                    "connections": connections,
                    "calls_per_s": outcome.calls_per_s,
                    "cpu_us": outcome.cpu_us,
                    "memory_mib": server.status("VmRSS") / 1024,
                },
            )

    return _turns(plan, PICTURE, measure)


def over_payload(plan: Plan) -> list[Run]:
    """Latency of one call and bytes a second by payload."""

    def measure(_: Rival, server: Server) -> Figures:
        for kilobytes in plan.some(PAYLOAD_KB):
            inputs = {"row": np.ones((1, kilobytes * 1024), np.uint8)}
            one = _load(plan, server, payload.NAME, inputs, (1, 1))
            many = _load(plan, server, payload.NAME, inputs, (_CONNECTIONS_OF_PAYLOAD, 1))
            yield (
                f"{kilobytes} KB",
                {
                    "payload_kb": kilobytes,
                    "p50_ms": one.p50_ms,
                    "cpu_us": one.cpu_us,
                    "mb_per_s": many.calls_per_s * kilobytes / 1000,
                },
            )

    with tempfile.TemporaryDirectory() as folder:
        payload.make_bundle(Path(folder))
        start = partial(servers.serving, Path(folder), [payload.NAME])
        return harness.take_turns([Rival(WEIR, start)], plan.rounds, measure)


def over_models(plan: Plan) -> list[Run]:
    """Time until ready, memory and threads by models."""
    runs = []
    for number in range(plan.rounds):
        for count in plan.some(MODELS):
            with tempfile.TemporaryDirectory() as folder:
                names = [f"{PICTURE}-{each:03}" for each in range(count)]
                for name in names:
                    shutil.copytree(plan.models / PICTURE, Path(folder) / name)
                started_s = time.perf_counter()
                with servers.serving(Path(folder), names) as server:
                    figures = {
                        "models": float(count),
                        "ready_s": time.perf_counter() - started_s,
                        "memory_mib": server.status("VmRSS") / 1024,
                        "threads": server.status("Threads"),
                    }
            runs.append(Run(WEIR, f"{count} models", number, figures))
    return runs


def over_lengths(plan: Plan) -> list[Run]:
    """Latency of one call, and steps a second under load, by sequence length."""

    def measure(_: Rival, server: Server) -> Figures:
        for length in plan.some(LENGTHS):
            inputs = {"tokens": np.ones((1, length), np.int64), "lengths": np.array([length])}
            one = _load(plan, server, SEQUENCE, inputs, (1, 1))
            many = _load(plan, server, SEQUENCE, inputs, (1, _MANY_STREAMS))
            yield (
                f"{length} steps",
                {
                    "length": length,
                    "p50_ms": one.p50_ms,
                    "calls_per_s": many.calls_per_s,
                    "steps_per_s": many.calls_per_s * length,
                },
            )

    return _turns(plan, SEQUENCE, measure)


QUESTIONS = {
    "connections": Question(
        over_connections,
        ("connections", "connections, one call in flight on each"),
        {"calls_per_s": "calls/s", "cpu_us": "CPU a call, µs", "memory_mib": "memory, MiB"},
    ),
    "payload": Question(
        over_payload,
        ("payload_kb", "payload, KB"),
        {"p50_ms": "p50, one in flight, ms", "mb_per_s": "MB/s, eight in flight"},
        is_logarithmic=True,
    ),
    "models": Question(
        over_models,
        ("models", "models"),
        {"ready_s": "start until ready, s", "memory_mib": "memory, MiB", "threads": "threads"},
    ),
    "lengths": Question(
        over_lengths,
        ("length", "steps of a sequence"),
        {"p50_ms": "p50, one in flight, ms", "steps_per_s": "steps/s, 32 in flight"},
        is_logarithmic=True,
    ),
}


def _turns(plan: Plan, name: str, measure: Callable[[Rival, Server], Figures]) -> list[Run]:
    """Rounds of a server that has only this model of the repository."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(plan.models / name, Path(folder) / name)
        start = partial(servers.serving, Path(folder), [name])
        return harness.take_turns([Rival(WEIR, start)], plan.rounds, measure)


def _load(
    plan: Plan,
    server: Server,
    model: str,
    inputs: Mapping[str, NDArray[Any]],
    shape: tuple[int, int],
) -> Outcome:
    """Repeat one call at a shape: connections, and calls in flight on each."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(load.infer_body(model, **inputs))
        file.flush()
        shaped = Load(MODEL_INFER, Path(file.name), *shape)
        trial_calls = max(_TRIAL_CALLS, 10 * shape[0])
        return load.measure(server, shaped, trial_calls=trial_calls, seconds=plan.seconds)


if __name__ == "__main__":
    main()
