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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.lib import charts, harness, load, servers, tagger, triton
from benchmarks.lib.answer_check import check_answers
from benchmarks.lib.harness import Rival, Run, console
from benchmarks.lib.load_generator import Schedule
from benchmarks.lib.servers import Server
from weir.bundle.reader import MODEL

WEIR, FIRST_COME, TRITON = RIVALS = "weir", "weir-first-come", "triton"
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
    given = parser.parse_args()
    tagger.make_bundle(given.models)
    sentences = tagger.sentences()
    if given.quick:
        sentences, given.passes, given.rounds = sentences[:_QUICK_SENTENCES], 1, 1
    environment = harness.start()
    runs = harness.take_turns(
        rivals(given.models, given.work),
        given.rounds,
        lambda rival, server: measure(
            task_of(rival, server, given.models, sentences),
            given.in_flight,
            connections=given.connections,
            passes=given.passes,
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
        Rival(
            TRITON,
            partial(triton.serving, work, models, [tagger.NAME], max_rows=_MAX_ROWS),
        ),
        Rival(
            FIRST_COME,
            partial(servers.serving, models, [tagger.NAME], module="benchmarks.rivals.first_come"),
        ),
    ]


def task_of(
    rival: Rival, server: Server, models: Path, sentences: Sequence[NDArray[np.int64]]
) -> "Task":
    """The requests of a rival, once it runs."""
    graph = models / tagger.NAME / "1" / MODEL
    return Task(server, tagger.NAME, graph, sentences, is_column=rival.name == TRITON)


@dataclass(frozen=True, slots=True)
class Task:
    """A running server and its requests.

    Attributes:
        model: its name of the tagger.
        graph: the tagger's file.
        is_column: whether it takes lengths as [batch, 1].
    """

    server: Server
    model: str
    graph: Path
    sentences: Sequence[NDArray[np.int64]]
    is_column: bool

    def inputs(self, sentence: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The request tensors of one sentence."""
        shape = (1, 1) if self.is_column else (1,)
        return {"tokens": sentence[np.newaxis], "lengths": np.full(shape, len(sentence), np.int64)}

    def schedule(self, order: Sequence[int], in_flight: int, connections: int) -> Schedule:
        """A closed loop over sentences in this order."""
        return Schedule(
            target=self.server.target,
            path=load.MODEL_INFER,
            bodies=[load.infer_body(self.model, **self.inputs(each)) for each in self.sentences],
            order=order,
            in_flight=in_flight,
            connections=connections,
        )


def measure(
    task: Task, in_flight: Sequence[int], *, connections: int, passes: int
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Every number of calls in flight, against one server process."""
    requests = [task.inputs(each) for each in task.sentences[:_CHECKED]]
    check_answers(task.server, task.model, task.graph, requests)
    warm_up = shuffled(len(task.sentences), passes, seed=0)[:_WARM_UP_CALLS]
    load.send_varied(task.schedule(warm_up, in_flight[0], connections))
    for number, calls in enumerate(in_flight):
        schedule = task.schedule(
            shuffled(len(task.sentences), passes, seed=number), calls, connections
        )
        before = steps(task.server)
        outcome = load.watch(task.server, len(schedule.order), partial(_send, schedule))
        waste = before.waste_until(steps(task.server))
        yield f"{calls} in flight", {**asdict(outcome), "waste": waste}


def _send(schedule: Schedule) -> load.Sent:
    return load.seen(load.send_varied(schedule))


def shuffled(rows: int, passes: int, *, seed: int) -> list[int]:
    """Passes over the rows, each in a random order."""
    orders = np.random.default_rng(seed)
    return [int(row) for _ in range(passes) for row in orders.permutation(rows)]


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps that a server computed so far, and how many of them were words."""

    words: float
    computed: float

    def waste_until(self, later: "Steps") -> float:
        """The share of padding among the steps since `before`; 0 for a server without padding."""
        computed = later.computed - self.computed
        return 1 - (later.words - self.words) / computed if computed else 0.0


def steps(server: Server) -> Steps:
    """The server's count of padding; Triton counts none."""
    return Steps(server.total("weir_input_tokens_total"), server.total("weir_padded_tokens_total"))


def report(runs: Sequence[Run]) -> None:
    """Medians and spreads over the rounds, and the ratios to Triton."""
    table = Table(
        "server", "load", "sentences/s", "p50 ms", "p99 ms", "batch", "in session", "waste",
        "CPU µs", "generator's CPU µs",
    )  # fmt: skip
    for rival, case in dict.fromkeys((run.rival, run.case) for run in runs):
        table.add_row(*row(runs, rival, case))
    console.print(table)
    for case in dict.fromkeys(run.case for run in runs):
        for rival in (WEIR, FIRST_COME):
            rate, p50, p99 = (
                harness.ratio(runs, figure, case=case, of=rival, to=TRITON).text(".2f")
                for figure in ("calls_per_s", "p50_ms", "p99_ms")
            )
            console.print(f"{case}: {rival} / {TRITON}: sentences/s {rate}, p50 {p50}, p99 {p99}")
    console.print(f"target: {WEIR} / {TRITON} {TARGET}")


def row(runs: Sequence[Run], rival: str, case: str) -> list[str]:
    """One row of the table."""

    def of(figure: str) -> harness.Spread:
        return harness.spread(runs, rival, case, figure)

    in_session = of("compute_us").median * of("calls_per_s").median / 1e6
    return [
        rival,
        case,
        of("calls_per_s").text(),
        of("p50_ms").text(".1f"),
        of("p99_ms").text(".1f"),
        of("mean_batch_rows").text(".1f"),
        f"{in_session:.0%}",
        f"{of('waste').median:.1%}",
        f"{of('cpu_us').median:.0f}",
        f"{of('generator_cpu_us').median:.0f}",
    ]


if __name__ == "__main__":
    main()
