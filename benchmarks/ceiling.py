"""Rate and cost of the load generators, measured with calls that compute nothing.

    .venv/bin/python benchmarks/ceiling.py [--json FILE]

A result near these rates measures the generator as well as the server. The call is `ServerLive`,
an empty message both ways. It comes from `h2load` and from `benchmarks/lib/load_generator.py`, with
128 in flight over 1 and over 16 connections. Then the generator's open loop is measured, and how
late it sends.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.table import Table

from benchmarks.lib import harness, load, servers
from benchmarks.lib.harness import Rival, Run, console
from benchmarks.lib.http2 import framed
from benchmarks.lib.load import Load, Sent
from benchmarks.lib.load_generator import Schedule
from benchmarks.lib.servers import Server
from weir.bench.tally import percentile

EMPTY = "/inference.GRPCInferenceService/ServerLive"
CONNECTIONS, IN_FLIGHT, RATES = (1, 16), 128, (500, 2000, 5000)
WEIR = "weir"


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--calls", type=int, default=50_000)
    given = parser.parse_args()
    load.require_h2load()
    rounds, calls = (1, 5000) if given.quick else (given.rounds, given.calls)
    environment = harness.start()
    with tempfile.TemporaryDirectory() as models:
        runs = harness.take_turns(
            [Rival(WEIR, partial(servers.serving, Path(models), []))],
            rounds,
            lambda _, server: measure(server, calls),
        )
    report(runs)
    harness.write(given.json, environment, runs)


def measure(server: Server, calls: int) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Both generators in a closed loop, then one in an open loop."""
    with tempfile.NamedTemporaryFile() as file:
        body = Path(file.name)
        body.write_bytes(framed(b""))
        for connections in CONNECTIONS:
            shape = Load(EMPTY, body, connections, IN_FLIGHT // connections)
            yield case_of("h2load", connections), _of(load.send(server, shape, calls), calls)
    for connections in CONNECTIONS:
        schedule = Schedule(
            server.target, EMPTY, [framed(b"")], [0] * calls, IN_FLIGHT, (), connections
        )
        sent = load.seen(load.send_varied(schedule))
        yield case_of("generator.py", connections), _of(sent, calls)
    for rate in RATES:
        count = min(calls, 4 * rate)
        due_s = load.due_times_s(rate, count, seed=0)
        record = load.send_varied(
            Schedule(server.target, EMPTY, [framed(b"")], [0] * count, 1, due_s)
        )
        late_ms = ((record.sent_s - record.began_s) * 1000).tolist()
        figures = _of(load.seen(record), count)
        yield (
            f"generator.py, {rate:,} a second",
            {**figures, "late_p99_ms": percentile(late_ms, 99)},
        )


def case_of(name: str, connections: int) -> str:
    """The name of a case: generator and connections."""
    return f"{name}, {IN_FLIGHT} over {connections}"


def report(runs: Sequence[Run]) -> None:
    """Medians and spreads over the rounds."""
    table = Table("load", "calls/s", "generator's CPU µs/call", "sent late, p99 ms")
    for case in dict.fromkeys(run.case for run in runs):
        of = partial(harness.spread, runs, WEIR, case)
        is_open = "late_p99_ms" in next(run.figures for run in runs if run.case == case)
        late = of("late_p99_ms").text(".2f") if is_open else ""
        table.add_row(case, of("calls_per_s").text(), of("cpu_us").text(".1f"), late)
    console.print(table)


def _of(sent: Sent, calls: int) -> dict[str, float]:
    return {"calls_per_s": calls / sent.seconds, "cpu_us": sent.cpu_s / calls * 1e6}


if __name__ == "__main__":
    main()
