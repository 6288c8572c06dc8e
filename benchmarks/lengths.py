"""Sentences of any length: Weir in FP32 and INT8 and its variants, and Triton, on one graph.

    WEIR_DATA=... .venv/bin/python benchmarks/lengths.py [--run RUN] [--in-flight 16 64 256] \
        [--rivals weir triton ...] [--json FILE] [--picture FILE]

The calls send the test sentences of UD English-EWT (2,077 of 1 to 81 words, 12 on average), one per
call, to a BiLSTM of 256 units per direction with random weights, or to the tagger of a finished run
of `weir train tagger` (`lib/tagger.py`). Each server gets the same passes over them, in the same
random order, in a closed loop. It has batches of up to 32 rows, one session and one thread. Every
answer is read, and some are compared with raw ONNX Runtime first.

- `weir`: unchanged.
- `weir-2-instances`: the same with `--instances 2`.
- `weir-int8`: the bundle of `--precision int8`, whose accuracy is printed beside that of FP32 if
  the weights are of a run.
- `weir-first-come`: the same server with first-come batches (`rivals/first_come.py`).
- `triton`: its Python backend around the FP32 graph, with dynamic batching. Triton does not batch
  unequal shapes, unless `allow_ragged_batch` leaves padding to the model's author.

Padding waste is the share of computed steps that belong to no word. The first run makes the bundles
under `.bench/` and installs Triton under `--work`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import charts, harness, load, servers, tagger, triton
from benchmarks.lib.harness import Column, Rival, Run, Target, console
from benchmarks.lib.load_generator import Schedule
from benchmarks.lib.raw import check_answers
from benchmarks.lib.servers import Server
from weir.bundle.reader import MODEL
from weir.export.runs.text import LENGTHS

WEIR, TWO_INSTANCES, INT8 = "weir", "weir-2-instances", "weir-int8"
FIRST_COME, TRITON = "weir-first-come", "triton"
RIVALS = (WEIR, TWO_INSTANCES, INT8, TRITON, FIRST_COME)
COLUMNS = (
    Column("sentences/s", "calls_per_s"),
    Column("p50 ms", "p50_ms", ".1f"),
    Column("p99 ms", "p99_ms", ".1f"),
    Column("batch", "mean_batch_rows", ".1f"),
    Column("in session", "in_session", ".0%", "median"),
    Column("waste", "waste", ".1%", "median"),
    Column("CPU µs", "cpu_us", ".0f", "median"),
    Column("generator's CPU µs", "generator_cpu_us", ".0f", "median"),
)
TARGETS = (
    Target("calls_per_s", "64 in flight", WEIR, TRITON, 2.8),
    Target("calls_per_s", "64 in flight", TWO_INSTANCES, TRITON, 3.2),
    Target("calls_per_s", "64 in flight", INT8, TRITON, 3.5),
)
_MAX_ROWS = 32
_ONE_THREAD = ("--threads", "1", "--instances")
_CHECKED, _WARM_UP_CALLS, _QUICK_SENTENCES = 20, 500, 300


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3, can_append=True)
    parser.add_argument("--models", type=Path, default=Path(".bench/tagger"))
    parser.add_argument("--run", type=Path, help="of weir train tagger; default: random weights")
    parser.add_argument("--rivals", choices=RIVALS, nargs="+", default=RIVALS)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--passes", type=int, default=4, help="over the sentences, in each case")
    given = harness.parse(parser)
    models = given.models / (given.run.name if given.run else "random")
    exact, integer = models / "fp32", models / "int8"
    tagger.make_bundle(exact, run=given.run)
    tagger.make_bundle(integer, "int8", run=given.run)
    requests = tagger.requests(given.run)
    if given.quick:
        requests, given.passes = requests[:_QUICK_SENTENCES], 1
    schedules = {
        in_flight: shuffled(len(requests), given.passes, seed=number)
        for number, in_flight in enumerate(given.in_flight)
    }
    environment = harness.start()
    runs = harness.take_turns(
        [each for each in rivals(exact, integer, given.work) if each.name in given.rivals],
        given.rounds,
        lambda rival, server: measure(
            server,
            (integer if rival.name == INT8 else exact) / tagger.NAME / "1" / MODEL,
            # Triton takes lengths as [batch, 1].
            [with_lengths_of(each, (1, 1)) for each in requests]
            if rival.name == TRITON
            else requests,
            schedules=schedules,
            connections=given.connections,
        ),
    )
    if given.append:
        runs = harness.appended(harness.earlier(given.json), runs)
    report(runs)
    if accuracies := tagger.accuracies(integer):
        console.print(f"accuracy: {accuracies}")
    harness.write(given.json, environment, runs)
    if given.picture:
        charts.bars(
            given.picture,
            runs,
            rivals=list(dict.fromkeys(run.rival for run in runs)),
            cases=list(dict.fromkeys(run.case for run in runs)),
            figures={"calls_per_s": "sentences a second", "p99_ms": "p99, ms"},
        )


def rivals(exact: Path, integer: Path, work: Path) -> list[Rival]:
    """The servers, in the order of a round; FP32 bundles are in `exact`, INT8's in `integer`."""
    names, one, two = [tagger.NAME], (*_ONE_THREAD, "1"), (*_ONE_THREAD, "2")
    return [
        Rival(WEIR, partial(servers.serving, exact, names, *one)),
        Rival(TWO_INSTANCES, partial(servers.serving, exact, names, *two)),
        Rival(INT8, partial(servers.serving, integer, names, *one)),
        Rival(TRITON, partial(triton.serving, work, exact, names, max_rows=_MAX_ROWS)),
        Rival(
            FIRST_COME,
            partial(servers.serving, exact, names, *one, module="benchmarks.rivals.first_come"),
        ),
    ]


def with_lengths_of(request: tagger.Request, shape: tuple[int, ...]) -> tagger.Request:
    """The request with its lengths in another shape."""
    return {**request, LENGTHS: request[LENGTHS].reshape(shape)}


def measure(
    server: Server,
    graph: Path,
    requests: Sequence[tagger.Request],
    *,
    schedules: Mapping[int, Sequence[int]],
    connections: int,
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """A closed loop for each number of calls in flight, against one server process."""
    check_answers(server, tagger.NAME, graph, requests[:_CHECKED])
    bodies = [load.infer_body(tagger.NAME, **each) for each in requests]
    warm_up = range(min(len(bodies), _WARM_UP_CALLS))
    load.send_varied(Schedule(server.target, load.MODEL_INFER, bodies, warm_up, min(schedules)))
    for in_flight, order in schedules.items():
        schedule = Schedule(
            target=server.target,
            path=load.MODEL_INFER,
            bodies=bodies,
            order=order,
            in_flight=in_flight,
            connections=connections,
        )
        before = steps(server)
        outcome = load.watch(server, len(order), partial(_send, schedule))
        words, computed = steps(server) - before
        waste = 1 - words / computed if computed else 0.0
        yield f"{in_flight} in flight", {**asdict(outcome), "waste": waste}


def _send(schedule: Schedule) -> load.Sent:
    return load.seen(load.send_varied(schedule))


def shuffled(rows: int, passes: int, *, seed: int) -> list[int]:
    """Passes over the rows, each in a random order."""
    orders = np.random.default_rng(seed)
    return [int(row) for _ in range(passes) for row in orders.permutation(rows)]


def steps(server: Server) -> NDArray[np.float64]:
    """Steps that were words, and all steps computed so far; Triton counts neither."""
    names = ("weir_input_tokens_total", "weir_padded_tokens_total")
    return np.array([server.total(name) for name in names])


def report(runs: Sequence[Run]) -> None:
    """Medians and spreads over the rounds, and the ratios to Triton."""
    console.print(harness.table(runs, COLUMNS))
    for case in dict.fromkeys(run.case for run in runs):
        for rival in (WEIR, TWO_INSTANCES, INT8, FIRST_COME):
            for figure in ("calls_per_s", "p50_ms", "p99_ms"):
                harness.print_ratio(runs, figure, case=case, of=rival, to=TRITON)
    harness.print_targets(runs, TARGETS)


if __name__ == "__main__":
    main()
