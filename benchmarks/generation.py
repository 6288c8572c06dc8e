"""Encoder-decoders under load: single requests, whole batches, or continuous batching.

    WEIR_DATA=... .venv/bin/python benchmarks/generation.py runs/pronounce runs/translate \
        [--json FILE] [--picture FILE]

The arguments are finished runs of `weir train pronounce --data g014b2b` and `weir train translate
--data multi30k`; `--quick` runs are enough for a trial. They are exported to `.bench/`. The calls
send their test sources in random order, one per call, with greedy search. Three servers have the
same graphs, transport and checks (`rivals/whole_requests.py`), so that only the scheduling differs:

- `one`: one request at a time.
- `whole`: up to 32 requests are collected when a batch ends, and answered when their last row ends.
- `steps`: Weir unchanged. Up to 32 rows; each joins and leaves between two steps.

First each server is saturated with 64 calls in flight, which gives its throughput. Then calls
arrive as a Poisson process, at multiples of the throughput of `whole`. The arrival times are the
same for all servers; latency counts from when a call was due. Servers take turns in every round.
None gets more than 1.1 times its own throughput, where the queue would only grow. At the end the
answers of all servers are compared, token by token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lib import charts, harness, load, servers
from benchmarks.lib.generation_report import (
    ONE,
    SATURATED,
    STEPS,
    WHOLE,
    Work,
    Workload,
    case_of,
    latencies,
    report,
)
from benchmarks.lib.harness import Rival, Run
from benchmarks.lib.load_generator import Schedule
from benchmarks.lib.servers import Server
from weir.export.runs.publishing import publish_run
from weir.training.run_directory import part_of, read_record
from weir.training.seq2seq.batches import encode
from weir.training.seq2seq.experiment import load_sides, load_test
from weir.training.seq2seq.recipes import Seq2SeqRecipe

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5)
MAX_ROWS = 32
_IN_FLIGHT = 2 * MAX_ROWS
_TRIAL_CALLS = 4 * MAX_ROWS
_MOST_LOAD = 1.1
_QUICK_SHARES, _QUICK_SECONDS = (0.5, 1.0), 2.0


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("training_runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--models", type=Path, default=Path(".bench/models"))
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    given = harness.parse(parser)
    if given.quick:
        given.shares, given.seconds = _QUICK_SHARES, _QUICK_SECONDS
    environment, runs = harness.start(), []
    panels = {}
    for path in given.training_runs:
        workload = make_workload(path, given.models)
        found = take_turns(given.models, workload, given.rounds, given.shares, given.seconds)
        report(workload, found)
        panels[workload.model] = [run for run in found if run.case != SATURATED]
        runs += [replace(each, case=f"{workload.model}, {each.case}") for each in found]
    harness.write(given.json, environment, runs)
    if given.picture:
        charts.curves(
            given.picture,
            panels,
            rivals=(ONE, WHOLE, STEPS),
            x="rate_per_s",
            figures={"p50_ms": "-", "p99_ms": "--"},
            labels=("calls a second", "latency, ms: p50 and p99"),
        )


def make_workload(run: Path, models: Path) -> Workload:
    """A run's bundle, published if it is absent, and its test sources up to training's limit."""
    if not (models / run.name).exists():
        publish_run(run, to=models, name=run.name)
    record = read_record(run)
    most = part_of(record, Seq2SeqRecipe).source.most_tokens
    rows = encode(load_test(record).sources, load_sides(run).source, run.name)
    bodies = [
        load.infer_body(run.name, tokens=np.array([row], np.int64), lengths=np.array([len(row)]))
        for row in rows
        if len(row) <= most
    ]
    return Workload(run.name, bodies)


def schedule_of(
    workload: Workload, server: Server, calls: int, *, seed: int, rate_per_s: float | None = None
) -> Schedule:
    """A schedule of sources in random order: closed loop, or an open loop at a rate."""
    orders, count = np.random.default_rng(seed), len(workload.bodies)
    passes = [orders.permutation(count) for _ in range(-(-calls // count))]
    return Schedule(
        target=server.target,
        path=load.MODEL_INFER,
        bodies=workload.bodies,
        order=np.concatenate(passes)[:calls].tolist(),
        in_flight=_IN_FLIGHT,
        due_s=load.due_times_s(rate_per_s, calls, seed) if rate_per_s else (),
    )


def rivals(models: Path, model: str) -> list[Rival]:
    """The servers, in the order of a round."""
    start = partial(servers.serving, models, [model], "--max-batch-rows")
    whole = "benchmarks.rivals.whole_requests"
    return [
        Rival(STEPS, partial(start, str(MAX_ROWS))),
        Rival(WHOLE, partial(start, str(MAX_ROWS), module=whole)),
        Rival(ONE, partial(start, "1", module=whole)),
    ]


def take_turns(
    models: Path, workload: Workload, rounds: int, shares: Sequence[float], seconds: float
) -> list[Run]:
    """Saturate every server, round by round, then load each at several rates."""
    found = harness.take_turns(
        rivals(models, workload.model),
        rounds,
        lambda rival, server: saturate(workload, rival.name, server, seconds),
    )
    limits = {
        name: harness.spread(found, name, SATURATED, "calls_per_s").median
        for name in (ONE, WHOLE, STEPS)
    }
    return found + harness.take_turns(
        rivals(models, workload.model),
        rounds,
        lambda rival, server: arrive(
            workload, rival.name, server, shares=shares, limits=limits, seconds=seconds
        ),
    )


def saturate(
    workload: Workload, rival: str, server: Server, seconds: float
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Closed loop: the throughput of a server."""
    trial = load.send_varied(schedule_of(workload, server, _TRIAL_CALLS, seed=0))
    calls = max(_TRIAL_CALLS, int(seconds * _TRIAL_CALLS / load.seen(trial).seconds))
    schedule, before = schedule_of(workload, server, calls, seed=1), Work.of(server, workload.model)

    def sending() -> load.Sent:
        record = load.send_varied(schedule)
        workload.keep(rival, schedule, record)
        return load.seen(record)

    outcome = load.watch(server, calls, sending)
    yield SATURATED, {**asdict(outcome), **before.until(Work.of(server, workload.model))}


def arrive(
    workload: Workload,
    rival: str,
    server: Server,
    *,
    shares: Sequence[float],
    limits: Mapping[str, float],
    seconds: float,
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Open loops at rising rates."""
    load.send_varied(schedule_of(workload, server, _TRIAL_CALLS, seed=0))
    for number, share in enumerate(shares):
        rate_per_s = share * limits[WHOLE]
        if rate_per_s > _MOST_LOAD * limits[rival]:
            return
        calls = int(rate_per_s * seconds)
        schedule = schedule_of(workload, server, calls, seed=number + 2, rate_per_s=rate_per_s)
        record = load.send_open(schedule)
        workload.keep(rival, schedule, record)
        yield case_of(share), {"rate_per_s": rate_per_s, **latencies(record)}


if __name__ == "__main__":
    main()
