"""Noisy neighbour: what a small model still does while another one is flooded; Weir and Triton.

    make demo && .venv/bin/python benchmarks/noisy_neighbour.py [--rivals weir triton] \
        [--before TREE] [--neighbour lenet5] [--rate 1000] [--seconds 3] [--json FILE [--append]]

The flooded model is `slow` (`lib/slow_model.py`), 8 rows a call, in an open loop at five times its
capacity with a deadline of 1 s. It computes on as many threads as there are cores: in Weir by its
setting `threads`, in Triton as instances of one thread. The neighbour is a model of `make demo`,
first alone and then beside the flood:

- closed loop: calls/s and p99 with one call in flight;
- open loop: p50 and p99 at `--rate` calls a second, from when a call was due.

Server and generators share the cores, so a core is never left to the server alone. `before` is the
server of another checkout, `--before`. A run counts only if all of the neighbour's calls are
answered OK, and the flood outlasts them.
"""

import os
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lib import harness, load, servers, slow_model, triton
from benchmarks.lib.harness import Column, Rival, console
from benchmarks.lib.load_generator import Record, Schedule
from benchmarks.lib.servers import Server
from weir.bench.tally import percentile

WEIR, BEFORE, TRITON = "weir", "before", "triton"
ALONE, BESIDE = "alone", "beside the flood"
COLUMNS = (
    Column("closed loop calls/s", "closed_per_s"),
    Column("of alone", "kept", ".0%"),
    Column("p99 ms", "closed_p99_ms", ",.1f"),
    Column("open loop p50 ms", "open_p50_ms", ",.1f"),
    Column("p99 ms", "open_p99_ms", ",.1f"),
    Column("flooded model, of its capacity", "flood_goodput", ".0%"),
)
_SIDES = {"lenet5": 28, "inception-v1": 28}
_ROWS, _MAX_ROWS = 8, 32
_FLOOD, _DEADLINE_S = 5.0, 1.0
# Until the queue of the flooded model is full.
_SETTLED_S = 1.5
_CAPACITY_CALLS, _TRIAL_CALLS = 200, 200
_SLOW_IN_FLIGHT = 8


def main() -> None:
    """Measure, print a table and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3, can_append=True)
    parser.add_argument("--neighbour", choices=sorted(_SIDES), default="lenet5")
    parser.add_argument("--demo", type=Path, default=Path(".demo/models"), help="has the neighbour")
    parser.add_argument("--rivals", nargs="+", help="default: all")
    parser.add_argument("--before", type=Path, metavar="TREE", help="a checkout of Weir to compare")
    parser.add_argument("--rate", type=float, default=1000.0, help="of the open loop, calls/s")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    given = harness.parse(parser)
    if given.quick:
        given.seconds = 1.0
    if not (given.demo / given.neighbour).is_dir():
        sys.exit(f"{given.demo / given.neighbour} is missing: run `make demo` first")
    environment = harness.start()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        slow_model.make_bundle(models)
        shutil.copytree(given.demo / given.neighbour, models / given.neighbour)
        runs = harness.take_turns(
            rivals(models, given), given.rounds, lambda _, server: measure(server, given)
        )
    if given.append:
        runs = harness.appended(harness.earlier(given.json), runs)
    console.print(harness.table(runs, COLUMNS, title=given.neighbour))
    harness.write(given.json, {**environment, "seconds": given.seconds}, runs)


def rivals(models: Path, given: Namespace) -> list[Rival]:
    """The servers to measure, in the order of a round."""
    names, threads = [slow_model.NAME, given.neighbour], len(os.sched_getaffinity(0))
    settings = models.parent / "weir.toml"
    settings.write_text(f"[models.{slow_model.NAME}]\nthreads = {threads}\n")
    weir = partial(servers.serving, models, names, "--config", str(settings))
    found = {
        WEIR: weir,
        TRITON: partial(
            triton.serving, given.work, models, names, max_rows=_MAX_ROWS, instances=threads
        ),
    }
    if given.before:
        found = {BEFORE: partial(weir, tree=given.before), **found}
    wanted = given.rivals or list(found)
    return [Rival(name, found[name]) for name in found if name in wanted]


def measure(server: Server, given: Namespace) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The neighbour alone, then beside the flood."""
    side = _SIDES[given.neighbour]
    body = load.infer_body(given.neighbour, image=np.zeros((1, side, side, 1), np.uint8))
    alone = neighbour(server, body, given)
    yield ALONE, alone
    with flooded(server, given.seconds) as flood:
        beside = neighbour(server, body, given)
        if flood.done():
            sys.exit("run void: the flood ended before the neighbour's calls")
    yield (
        BESIDE,
        {
            **beside,
            "kept": beside["closed_per_s"] / alone["closed_per_s"],
            "flood_goodput": flood.result(),
        },
    )


def neighbour(server: Server, body: bytes, given: Namespace) -> dict[str, float]:
    """Both loads of the neighbour."""

    def closed(calls: int) -> load.Sent:
        schedule = Schedule(server.target, load.MODEL_INFER, [body], [0] * calls)
        return load.seen(load.send_varied(schedule))

    trial = closed(_TRIAL_CALLS)
    found = closed(max(_TRIAL_CALLS, int(given.seconds * _TRIAL_CALLS / trial.seconds)))
    calls = int(given.rate * given.seconds)
    due_s = load.due_times_s(given.rate, calls, seed=0)
    schedule = Schedule(server.target, load.MODEL_INFER, [body], [0] * calls, due_s=due_s)
    opened = load.seen(load.send_varied(schedule))
    return {
        "closed_per_s": len(found.latencies_ms) / found.seconds,
        "closed_p99_ms": percentile(found.latencies_ms, 99),
        "open_p50_ms": percentile(opened.latencies_ms, 50),
        "open_p99_ms": percentile(opened.latencies_ms, 99),
    }


@contextmanager
def flooded(server: Server, seconds: float) -> Iterator[Future[float]]:
    """Flood the slow model for longer than `neighbour` takes; gives its goodput of its capacity."""
    rows = slow_model.rows_of(_ROWS, seed=0)
    body = load.infer_body(slow_model.NAME, **{slow_model.INPUT: rows})
    closed = Schedule(
        server.target,
        load.MODEL_INFER,
        [body],
        [0] * _CAPACITY_CALLS,
        in_flight=_SLOW_IN_FLIGHT,
        connections=_SLOW_IN_FLIGHT,
    )
    capacity_per_s = _CAPACITY_CALLS / load.seen(load.send_varied(closed)).seconds
    # Closed loops may take several times as long as expected from their first calls.
    flood_s = _SETTLED_S + 4 * seconds + 2.0
    calls = int(_FLOOD * capacity_per_s * flood_s)
    schedule = Schedule(
        server.target,
        load.MODEL_INFER,
        [body],
        [0] * calls,
        due_s=load.due_times_s(_FLOOD * capacity_per_s, calls, seed=1),
        connections=_SLOW_IN_FLIGHT,
        timeouts_s=[_DEADLINE_S] * calls,
    )
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: goodput_per_s(load.send_open(schedule)) / capacity_per_s)
        time.sleep(_SETTLED_S)
        yield future


def goodput_per_s(record: Record) -> float:
    """Calls answered in time a second, of those that were due after the queue was full."""
    later = record.began_s >= _SETTLED_S
    is_good = (record.statuses == 0) & (record.ended_s - record.began_s <= _DEADLINE_S)
    return float((is_good & later).sum()) / (float(record.began_s.max()) - _SETTLED_S)


if __name__ == "__main__":
    main()
