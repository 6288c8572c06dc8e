"""A small model under load while a large one loads: LeNet-5 while AlexNet is reloaded.

    make demo && .venv/bin/python benchmarks/reload_stall.py [--json FILE] [--seconds 20] \
        [--rounds 3]

Two servers with both models take turns, round by round. One only serves; the other also reloads
AlexNet by `RepositoryModelLoad`, one load after the other until the calls end. There are two loads,
one picture per call: a closed loop of 16 in flight (h2load), and an open loop, whose latency counts
from when a call was due, so that a pause shows in every call that it delays. Server, generator and
loading share the cores, so the loading slows the others.

The first run makes AlexNet's bundle, which takes a minute and 244 MB under `.bench/`.
"""

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lenet import MODEL, graph_of
from benchmarks.lib import alexnet, harness, load, servers
from benchmarks.lib.harness import Column, Rival, console
from benchmarks.lib.load import MODEL_INFER, Load, Sent
from benchmarks.lib.load_generator import Schedule
from benchmarks.lib.servers import Server
from weir import Client
from weir.bench.tally import percentile

STILL, RELOADING = "serves", "reloads"
CLOSED, OPEN = "16 in flight", "open loop"
IN_FLIGHT = 16
_TRIAL_CALLS = 2000
_PERCENTILES = (50, 99, 99.9, 100)
COLUMNS = (
    Column("calls/s", "calls_per_s"),
    Column("p50 ms", "p50_ms", ".2f"),
    Column("p99 ms", "p99_ms", ".2f"),
    Column("p99.9 ms", "p99.9_ms", ".1f"),
    Column("longest ms", "p100_ms", ".0f"),
    Column("loads", "loads", ".0f"),
    Column("s each", "load_s", ".1f"),
)


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--models", type=Path, default=Path(".demo/models"), help="with LeNet-5")
    parser.add_argument("--large", type=Path, default=Path(".bench/models"), help="with AlexNet")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each kind of load")
    parser.add_argument("--rate", type=float, default=1000.0, help="calls a second, open loop")
    given = harness.parse(parser)
    load.require_h2load()
    if not graph_of(given.models).is_file():
        sys.exit(f"{graph_of(given.models)} is missing: run `make demo` first")
    alexnet.make_bundles(given.large)
    environment = harness.start()
    seconds = 3.0 if given.quick else given.seconds
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        shutil.copytree(given.models / MODEL, models / MODEL)
        shutil.copytree(given.large / alexnet.PICTURES, models / alexnet.PICTURES)
        start = partial(
            servers.serving, models, [MODEL, alexnet.PICTURES], "--model-control", "explicit"
        )
        runs = harness.take_turns(
            [Rival(STILL, start), Rival(RELOADING, start)],
            given.rounds,
            lambda rival, server: measure(rival, server, given.rate, seconds),
        )
    console.print(harness.table(runs, COLUMNS))
    for case in (CLOSED, OPEN):
        for figure in ("p50_ms", "p99_ms", "p100_ms"):
            harness.print_ratio(runs, figure, case=case, of=RELOADING, to=STILL)
    harness.write(given.json, environment, runs)


def measure(
    rival: Rival, server: Server, rate_per_s: float, seconds: float
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Both loads against one server process, with or without reloads."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), np.uint8)
    body = load.infer_body(MODEL, image=picture)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "body"
        file.write_bytes(body)
        closed = Load(MODEL_INFER, file, 1, IN_FLIGHT)
        load.send(server, closed, _TRIAL_CALLS)  # warm-up
        calls = int(_TRIAL_CALLS / load.send(server, closed, _TRIAL_CALLS).seconds * seconds)
        with reloading(server, rival.name == RELOADING) as loads_s:
            sent = load.send(server, closed, calls)
        expected = 2 * _TRIAL_CALLS + calls
        if (answered := server.answered(expected)) != expected:
            sys.exit(f"run void: of {expected} calls {answered:.0f} were answered OK")
        yield CLOSED, figures(sent, loads_s)
    due_s = load.due_times_s(rate_per_s, int(rate_per_s * seconds), seed=0)
    schedule = Schedule(server.target, MODEL_INFER, [body], [0] * len(due_s), due_s=due_s)
    with reloading(server, rival.name == RELOADING) as loads_s:
        sent = load.seen(load.send_varied(schedule))
    yield OPEN, figures(sent, loads_s)


@contextmanager
def reloading(server: Server, is_reloading: bool) -> Iterator[list[float]]:  # noqa: FBT001 - one of two
    """Reload AlexNet in a loop if `is_reloading`; the durations of the loads."""
    loads_s: list[float] = []
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reloads = pool.submit(_reload, server, loads_s, is_over) if is_reloading else None
        try:
            yield loads_s
        finally:
            is_over.set()
    if reloads:
        reloads.result()


def _reload(server: Server, loads_s: list[float], is_over: threading.Event) -> None:
    with Client(server.target) as client:
        while not is_over.is_set():
            started_s = time.perf_counter()
            client.load(alexnet.PICTURES, reload=True)
            loads_s.append(time.perf_counter() - started_s)


def figures(sent: Sent, loads_s: list[float]) -> dict[str, float]:
    """The result of one run."""
    return {
        "calls_per_s": len(sent.latencies_ms) / sent.seconds,
        **{f"p{each}_ms": percentile(sent.latencies_ms, each) for each in _PERCENTILES},
        "loads": len(loads_s),
        "load_s": sum(loads_s) / len(loads_s) if loads_s else 0.0,
    }


if __name__ == "__main__":
    main()
