"""How many servers does a rate need? The formula of docs/scaling.md beside measurements.

    .venv/bin/python benchmarks/capacity.py MODELS NAME [--seconds 15] [--rounds 2] [--json FILE]

Each server has one core. The model should take milliseconds, so that the load generator takes
little of the cores. `weir bench` first finds C, the capacity of one server, in a closed loop. Then
it sends requests at random times, at shares of C, to one server and balanced over two. By the
formula a server is well up to 70 % of C, and two servers take twice that.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.lib import harness
from benchmarks.lib.harness import Column, Run, console
from benchmarks.lib.servers import Server, serving

# Shares of C, and the number of servers that they are sent to.
CASES = ((0.7, 1), (1.2, 1), (1.2, 2), (1.4, 2))


def main() -> None:
    """Measure and print."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=2)
    parser.add_argument("models", type=Path)
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, default=15.0)
    given = harness.parse(parser)
    environment = harness.start()
    seconds = 3.0 if given.quick else given.seconds
    runs: list[Run] = []
    with two_servers(given.models, given.name) as servers:
        for number in range(given.rounds):
            alone, full = "1 in flight, 1 server", "64 in flight, 1 server: C"
            figures = bench(given.name, servers[:1], "-c", "1", "-d", f"{seconds}s")
            runs.append(Run("weir", alone, number, figures))
            figures = bench(
                given.name, servers[:1], "-c", "64", "--connections", "8", "-d", f"{seconds}s"
            )
            runs.append(Run("weir", full, number, figures))
            capacity = figures["calls_per_s"]
            for share, count in CASES:
                rate = ("--rate", f"{share * capacity:.1f}", "-d", f"{seconds}s")
                figures = bench(given.name, servers[:count], *rate)
                runs.append(Run("weir", f"{share:.0%} of C, servers: {count}", number, figures))
    columns = (
        Column("calls/s", "calls_per_s", ",.1f"),
        Column("p50 ms", "p50_ms", ",.1f"),
        Column("p99 ms", "p99_ms", ",.1f"),
        Column("failed", "failed"),
    )
    console.print(harness.table(runs, columns))
    harness.write(given.json, environment, runs)


def bench(name: str, servers: Sequence[Server], *flags: str) -> dict[str, float]:
    """One run of `weir bench`."""
    target = ",".join(server.target for server in servers)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        # Several rows a call: the generator takes less of the cores.
        command = ["bench", name, "--target", target, "--json", file.name, "--rows", "4", *flags]
        # Exit code 1: calls failed, which is a result here.
        subprocess.run([sys.executable, "-m", "weir", *command], check=False, capture_output=True)
        result = json.loads(Path(file.name).read_text())["result"]
    return {
        "calls_per_s": result["calls_per_s"],
        "failed": float(sum(result["errors"].values())),
        **{f"{each}_ms": 1000 * seconds for each, seconds in result["latency_s"].items()},
    }


@contextmanager
def two_servers(models: Path, name: str) -> Iterator[list[Server]]:
    """Two servers, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers = []
        for core in cores[:2]:
            # A process inherits it, and takes its number of threads from it.
            os.sched_setaffinity(0, {core})
            servers.append(stack.enter_context(serving(models, [name])))
        os.sched_setaffinity(0, cores)
        yield servers


if __name__ == "__main__":
    main()
