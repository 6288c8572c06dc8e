"""Rate and cost of the load generators, measured with calls that compute nothing.

    .venv/bin/python benchmarks/ceiling.py [--json FILE]

A result near these rates measures the generator as well as the server. The call is `ServerLive`,
an empty message both ways. It comes from `h2load` and from `benchmarks/lib/load_generator.py`, with
128 in flight over 1 and over 16 connections. Then the generator's open loop is measured, and how
late it sends.
"""

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.lib import harness, load, servers
from benchmarks.lib.harness import Column, Rival, console
from benchmarks.lib.http2 import framed
from benchmarks.lib.load import Load, Sent
from benchmarks.lib.load_generator import Schedule
from benchmarks.lib.servers import Server
from weir.bench.tally import percentile

EMPTY = "/inference.GRPCInferenceService/ServerLive"
CONNECTIONS, IN_FLIGHT, RATES = (1, 16), 128, (500, 2000, 5000)
WEIR = "weir"
COLUMNS = (
    Column("calls/s", "calls_per_s"),
    Column("generator's CPU µs/call", "cpu_us", ".1f"),
    Column("sent late, p99 ms", "late_p99_ms", ".2f"),
)


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--calls", type=int, default=50_000)
    given = harness.parse(parser)
    load.require_h2load()
    calls = 5000 if given.quick else given.calls
    environment = harness.start()
    with tempfile.TemporaryDirectory() as models:
        runs = harness.take_turns(
            [Rival(WEIR, partial(servers.serving, Path(models), []))],
            given.rounds,
            lambda _, server: measure(server, calls),
        )
    console.print(harness.table(runs, COLUMNS))
    harness.write(given.json, environment, runs)


def measure(server: Server, calls: int) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Both generators in a closed loop, then one in an open loop."""
    with tempfile.NamedTemporaryFile() as file:
        body = Path(file.name)
        body.write_bytes(framed(b""))
        for connections in CONNECTIONS:
            shape = Load(EMPTY, body, connections, IN_FLIGHT // connections)
            case = f"h2load, {IN_FLIGHT} over {connections}"
            yield case, _of(load.send(server, shape, calls), calls)
    for connections in CONNECTIONS:
        schedule = Schedule(
            server.target, EMPTY, [framed(b"")], [0] * calls, IN_FLIGHT, (), connections
        )
        sent = load.seen(load.send_varied(schedule))
        yield f"generator.py, {IN_FLIGHT} over {connections}", _of(sent, calls)
    for rate in RATES:
        count = min(calls, 4 * rate)
        due_s = load.due_times_s(rate, count, seed=0)
        record = load.send_varied(
            Schedule(server.target, EMPTY, [framed(b"")], [0] * count, 1, due_s)
        )
        late_ms = ((record.sent_s - record.began_s) * 1000).tolist()
        figures = _of(load.seen(record), count)
        figures["late_p99_ms"] = percentile(late_ms, 99)
        yield f"generator.py, {rate:,} a second", figures


def _of(sent: Sent, calls: int) -> dict[str, float]:
    return {"calls_per_s": calls / sent.seconds, "cpu_us": sent.cpu_s / calls * 1e6}


if __name__ == "__main__":
    main()
