"""LeNet-5, one picture per call: Weir and Triton, and others on request, on one graph.

    make demo && .venv/bin/python benchmarks/lenet.py [--rivals weir triton] [--shapes 8x16 ...] \
        [--json FILE [--append]] [--picture FILE]

`h2load` sends a prepared LeNet-5 request. A shape is connections x calls in flight on each. Before
a server is measured its answers are compared with raw ONNX Runtime. Every process has one session
with one thread. A run is void unless the server counts every call as answered OK. The first run
installs Triton and MLServer in their own environments under `--work` (400 MB); see `lib/triton.py`
and `lib/mlserver.py` for their settings.

- `weir-2`: two processes of Weir on one port (`--share-port`); its CPU time is the sum of both.
- `weir-public`: the transport `grpc-server`.

Five rounds of all shapes take seven minutes. Several short runs with `--append` count as one.

"CPU outside session" is the server's CPU time per call minus the time that raw ONNX Runtime needs
for a row at that run's mean batch size.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lib import charts, harness, load, mlserver, servers, triton
from benchmarks.lib.harness import Column, Rival, Run, Target, console
from benchmarks.lib.load import MODEL_INFER, Load
from benchmarks.lib.raw import check_answers, raw_session, speed
from benchmarks.lib.servers import Server

Shape = tuple[int, int]
"""Connections, and open calls on each."""

MODEL = "lenet5"
WEIR, TWO, PUBLIC, TRITON, MLSERVER = "weir", "weir-2", "weir-public", "triton", "mlserver"
COLUMNS = (
    Column("calls/s", "calls_per_s"),
    Column("p50 ms", "p50_ms", ".2f"),
    Column("p99 ms", "p99_ms", ".2f"),
    Column("batch", "mean_batch_rows", ".1f", "median"),
    Column("CPU µs/call", "cpu_us", ".0f", "median"),
    Column("outside session", "outside_session_us", ".0f", "median"),
)
SHAPES: tuple[Shape, ...] = ((1, 1), (8, 1), (1, 128), (8, 16), (16, 8), (128, 1))
SHAPES_OF_TWO: tuple[Shape, ...] = ((16, 8), (128, 1))
_QUICK_SHAPES: tuple[Shape, ...] = ((1, 1), (16, 8))
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_MAX_ROWS = 32


def case_of(shape: Shape) -> str:
    """The name of a load: connections x calls in flight on each."""
    return f"{shape[0]} x {shape[1]}"


TARGETS = (
    *(Target("calls_per_s", case_of(each), WEIR, TRITON, 1.2) for each in SHAPES),
    *(Target("cpu_us", case_of(each), WEIR, TRITON, 0.95, at_least=False) for each in SHAPES),
    *(Target("calls_per_s", case_of(each), TWO, TRITON, 1.5) for each in SHAPES_OF_TWO),
)


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=5, can_append=True)
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument(
        "--rivals", nargs="+", default=[WEIR, TRITON, TWO], help=f"also {PUBLIC} and {MLSERVER}"
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=shape_of,
        default=SHAPES,
        metavar="CONNECTIONSxSTREAMS",
        help="shapes of load, such as 8x16",
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    given = harness.parse(parser)
    load.require_h2load()
    if not (graph := graph_of(given.models)).is_file():
        sys.exit(f"{graph} is missing: run `make demo` first")
    environment = harness.start()
    raw = measure_raw(graph)
    shapes, seconds = (_QUICK_SHAPES, 0.5) if given.quick else (given.shapes, given.seconds)
    runs = harness.take_turns(
        [
            each
            for each in rivals(given.models, given.work)
            if each.name in given.rivals and shapes_of(each, shapes)
        ],
        given.rounds,
        lambda rival, server: measure(server, graph, shapes_of(rival, shapes), seconds, raw),
    )
    if given.append:
        runs = harness.appended(harness.earlier(given.json), runs)
    report(raw, runs)
    harness.write(given.json, {**environment, "raw_us_per_row": raw}, runs)
    if given.picture:
        charts.bars(
            given.picture,
            runs,
            rivals=list(dict.fromkeys(run.rival for run in runs)),
            cases=list(dict.fromkeys(run.case for run in runs)),
            figures={"calls_per_s": "calls a second", "cpu_us": "CPU a call, µs"},
        )


def shape_of(text: str) -> Shape:
    """A shape from `8x16`."""
    found = re.fullmatch("([1-9][0-9]*)x([1-9][0-9]*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected CONNECTIONSxSTREAMS such as 8x16, got {text!r}")
    return int(found[1]), int(found[2])


def graph_of(models: Path) -> Path:
    """A repository with the LeNet-5 bundle."""
    return models / MODEL / "1" / "model.onnx"


def rivals(models: Path, work: Path) -> list[Rival]:
    """The servers, in the order of a round."""
    equal = ("--threads", "1", "--instances", "1")
    start = partial(servers.serving, models, [MODEL], *equal)
    return [
        Rival(WEIR, start),
        Rival(TRITON, partial(triton.serving, work, models, [MODEL], max_rows=_MAX_ROWS)),
        Rival(TWO, partial(servers.sharing, models, [MODEL], *equal, processes=2)),
        Rival(PUBLIC, partial(start, "--transport", "grpc-server")),
        Rival(MLSERVER, partial(mlserver.serving, work, models, MODEL, max_rows=_MAX_ROWS)),
    ]


def shapes_of(rival: Rival, shapes: Sequence[Shape]) -> list[Shape]:
    """The loads of a server: two processes need several connections, MLServer several callers."""
    if rival.name == TWO:
        return [shape for shape in shapes if shape in SHAPES_OF_TWO]
    return [shape for shape in shapes if rival.name != MLSERVER or shape != (1, 1)]


def measure_raw(graph: Path) -> dict[int, float]:
    """Microseconds per row of raw ONNX Runtime, one thread, by batch size: the best of 30."""
    session, result = raw_session(graph, threads=1), {}
    for rows in _BATCHES:
        image = np.random.default_rng(0).integers(0, 256, (rows, 28, 28, 1), np.uint8)
        rates = [speed(session, {"image": image}, rows, 0.01)["rows_per_s"] for _ in range(30)]
        result[rows] = 1e6 / max(rates)
    return result


def measure(
    server: Server,
    graph: Path,
    shapes: Sequence[Shape],
    seconds: float,
    raw: Mapping[int, float],
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Every load against one server process."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), np.uint8)
    check_answers(server, MODEL, graph, [{"image": picture}])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "body"
        file.write_bytes(load.infer_body(MODEL, image=picture))
        load.send(server, Load(MODEL_INFER, file, 8, 16), 2000)  # warm-up
        for connections, streams in shapes:
            shaped = Load(MODEL_INFER, file, connections, streams)
            trial_calls = max(400, 50 * connections)
            outcome = load.measure(server, shaped, trial_calls=trial_calls, seconds=seconds)
            nearest = min(raw, key=lambda rows: abs(rows - outcome.mean_batch_rows))
            figures = {**asdict(outcome), "outside_session_us": outcome.cpu_us - raw[nearest]}
            yield case_of((connections, streams)), figures


def report(raw: Mapping[int, float], runs: Sequence[Run]) -> None:
    """Medians and spreads over the rounds, and the ratios that have a target."""
    best = min(raw, key=lambda rows: raw[rows])
    console.print(f"raw ONNX Runtime, 1 thread: {1e6 / raw[best]:,.0f} rows/s in batches of {best}")
    console.print(harness.table(runs, COLUMNS))
    harness.print_targets(runs, TARGETS)


if __name__ == "__main__":
    main()
