"""LeNet-5, one picture per call: Weir on both transports, Triton and MLServer, on one graph.

    make demo && .venv/bin/python benchmarks/lenet.py [--rivals weir triton] [--json FILE] \
        [--picture FILE]

`h2load` sends a prepared LeNet-5 request. Before a server is measured its answers are compared with
raw ONNX Runtime. A run is void unless the server counts every call as answered OK. The first run
installs Triton and MLServer in their own environments under `--work` (400 MB); see `lib/triton.py`
and `lib/mlserver.py` for their settings.

"CPU outside session" is the server's CPU time per call minus the time that raw ONNX Runtime needs
for a row at that run's mean batch size.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lib import charts, harness, load, mlserver, servers, triton
from benchmarks.lib.harness import Column, Rival, Run, console
from benchmarks.lib.load import MODEL_INFER, Load
from benchmarks.lib.raw import check_answers, raw_session, speed
from benchmarks.lib.servers import Server

MODEL = "lenet5"
WEIR, PUBLIC, TRITON, MLSERVER = "weir", "weir-public", "triton", "mlserver"
COLUMNS = (
    Column("calls/s", "calls_per_s"),
    Column("p50 ms", "p50_ms", ".2f"),
    Column("p99 ms", "p99_ms", ".2f"),
    Column("batch", "mean_batch_rows", ".1f", "median"),
    Column("CPU µs/call", "cpu_us", ".0f", "median"),
    Column("outside session", "outside_session_us", ".0f", "median"),
)
TARGETS = (
    # Figure, case, rival, and the target ratio of Weir's figure to the rival's.
    ("calls_per_s", (1, 128), TRITON, "at least 1.5"),
    ("calls_per_s", (16, 8), TRITON, "at least 1.5"),
    ("calls_per_s", (1, 128), MLSERVER, "at least 8"),
    ("calls_per_s", (16, 8), MLSERVER, "at least 8"),
    ("p50_ms", (1, 1), TRITON, "at most 0.6"),
    ("calls_per_s", (8, 16), PUBLIC, "more than 1"),
)
# Connections, and open calls on each.
SHAPES = ((1, 1), (8, 4), (1, 128), (8, 16), (16, 8))
_QUICK_SHAPES = ((1, 1), (16, 8))
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_MAX_ROWS = 32


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument("--rivals", nargs="+", default=[WEIR, PUBLIC, TRITON, MLSERVER])
    parser.add_argument("--seconds", type=float, default=3.0)
    given = harness.parse(parser)
    load.require_h2load()
    if not (graph := graph_of(given.models)).is_file():
        sys.exit(f"{graph} is missing: run `make demo` first")
    environment = harness.start()
    raw = measure_raw(graph)
    shapes, seconds = (_QUICK_SHAPES, 0.5) if given.quick else (SHAPES, given.seconds)
    runs = harness.take_turns(
        [each for each in rivals(given.models, given.work) if each.name in given.rivals],
        given.rounds,
        lambda rival, server: measure(server, graph, shapes_of(rival, shapes), seconds, raw),
    )
    report(raw, runs)
    harness.write(given.json, {**environment, "raw_us_per_row": raw}, runs)
    if given.picture:
        charts.bars(
            given.picture,
            runs,
            rivals=list(dict.fromkeys(run.rival for run in runs)),
            cases=[case_of(shape) for shape in shapes],
            figures={"calls_per_s": "calls a second", "p50_ms": "p50, ms"},
        )


def graph_of(models: Path) -> Path:
    """A repository with the LeNet-5 bundle."""
    return models / MODEL / "1" / "model.onnx"


def rivals(models: Path, work: Path) -> list[Rival]:
    """The servers, in the order of a round."""
    public = partial(servers.serving, models, [MODEL], "--transport", "grpc-server")
    return [
        Rival(WEIR, partial(servers.serving, models, [MODEL])),
        Rival(TRITON, partial(triton.serving, work, models, [MODEL], max_rows=_MAX_ROWS)),
        Rival(PUBLIC, public),
        Rival(MLSERVER, partial(mlserver.serving, work, models, MODEL, max_rows=_MAX_ROWS)),
    ]


def shapes_of(rival: Rival, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The loads of a server: MLServer, tuned for many callers, delays a single one."""
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
    shapes: Sequence[tuple[int, int]],
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


def case_of(shape: tuple[int, int]) -> str:
    """The name of a load: calls in flight over connections."""
    connections, streams = shape
    return f"{connections * streams} over {connections}"


def report(raw: Mapping[int, float], runs: Sequence[Run]) -> None:
    """Medians and spreads over the rounds, and the ratios that have a target."""
    best = min(raw, key=lambda rows: raw[rows])
    console.print(f"raw ONNX Runtime, 1 thread: {1e6 / raw[best]:,.0f} rows/s in batches of {best}")
    console.print(harness.table(runs, COLUMNS))
    for figure, shape, rival, target in TARGETS:
        harness.print_ratio(runs, figure, case=case_of(shape), of=WEIR, to=rival, target=target)


if __name__ == "__main__":
    main()
