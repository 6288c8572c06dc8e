"""Sentences of any length: Weir, Weir with first-come batches, and Triton, on one graph.

    WEIR_DATA=... .venv/bin/python benchmarks/lengths.py [--in-flight 16 64 256] [--json FILE] \
        [--picture FILE]

The calls send the test sentences of UD English-EWT (2,077 of 1 to 81 words, 12 on average), one per
call, to a BiLSTM of 256 units per direction with random weights (`lib/tagger.py`). Each server gets
the same passes over them, in the same random order, in a closed loop. It has batches of up to 32
rows, one session and one thread. Every answer is read, and some are compared with raw ONNX Runtime
first.

- `weir`: unchanged.
- `weir-first-come`: the same server with first-come batches (`rivals/first_come.py`).
- `triton`: its Python backend around the same graph, with dynamic batching. Triton does not batch
  unequal shapes, unless `allow_ragged_batch` leaves padding to the model's author.

Padding waste is the share of computed steps that belong to no word. The first run makes the bundle
under `.bench/` and installs Triton under `--work`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import charts, harness, load, servers, tagger, triton
from benchmarks.lib.harness import Column, Rival, Run, console
from benchmarks.lib.load_generator import Schedule
from benchmarks.lib.raw import check_answers
from benchmarks.lib.servers import Server
from weir.bundle.reader import MODEL

WEIR, FIRST_COME, TRITON = RIVALS = "weir", "weir-first-come", "triton"
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
TARGET = "at least 4.0 with 64 in flight, and a lower p99"
_MAX_ROWS = 32
_CHECKED, _WARM_UP_CALLS, _QUICK_SENTENCES = 20, 500, 300


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--models", type=Path, default=Path(".bench/models"))
    parser.add_argument("--in-flight", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--passes", type=int, default=4, help="over the sentences, in each case")
    given = harness.parse(parser)
    tagger.make_bundle(given.models)
    sentences = tagger.sentences()
    if given.quick:
        sentences, given.passes = sentences[:_QUICK_SENTENCES], 1
    schedules = {
        in_flight: shuffled(len(sentences), given.passes, seed=number)
        for number, in_flight in enumerate(given.in_flight)
    }
    environment = harness.start()
    runs = harness.take_turns(
        rivals(given.models, given.work),
        given.rounds,
        lambda rival, server: measure(
            server,
            given.models / tagger.NAME / "1" / MODEL,
            sentences,
            # Triton takes lengths as [batch, 1].
            lengths_shape=(1, 1) if rival.name == TRITON else (1,),
            schedules=schedules,
            connections=given.connections,
        ),
    )
    report(runs)
    harness.write(given.json, environment, runs)
    if given.picture:
        charts.bars(
            given.picture,
            runs,
            rivals=list(RIVALS),
            cases=list(dict.fromkeys(run.case for run in runs)),
            figures={"calls_per_s": "sentences a second", "p99_ms": "p99, ms"},
        )


def rivals(models: Path, work: Path) -> list[Rival]:
    """The servers, in the order of a round."""
    return [
        Rival(WEIR, partial(servers.serving, models, [tagger.NAME])),
        Rival(TRITON, partial(triton.serving, work, models, [tagger.NAME], max_rows=_MAX_ROWS)),
        Rival(
            FIRST_COME,
            partial(servers.serving, models, [tagger.NAME], module="benchmarks.rivals.first_come"),
        ),
    ]


def measure(
    server: Server,
    graph: Path,
    sentences: Sequence[NDArray[np.int64]],
    *,
    lengths_shape: tuple[int, ...],
    schedules: Mapping[int, Sequence[int]],
    connections: int,
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """A closed loop for each number of calls in flight, against one server process."""
    requests = [
        {"tokens": each[np.newaxis], "lengths": np.full(lengths_shape, len(each), np.int64)}
        for each in sentences
    ]
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
        for rival in (WEIR, FIRST_COME):
            for figure in ("calls_per_s", "p50_ms", "p99_ms"):
                harness.print_ratio(runs, figure, case=case, of=rival, to=TRITON)
    console.print(f"target: {WEIR} / {TRITON} {TARGET}")


if __name__ == "__main__":
    main()
