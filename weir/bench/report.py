"""Report of a load: a table, and a JSON record."""

import dataclasses
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from weir.bench.plan import Plan
from weir.bench.tally import Summary


def table(summary: Summary) -> Table:
    """A table of throughput, latency and errors."""
    grid = Table("measure", "value")
    grid.columns[1].justify = "right"
    grid.add_row("calls answered", f"{summary.answered:,}")
    if summary.late:
        grid.add_row("… after the end", f"{summary.late:,}")
    grid.add_row("calls/s", f"{summary.calls_per_s:,.0f}")
    grid.add_row("rows/s", f"{summary.rows_per_s:,.0f}")
    for name, seconds in summary.latency_s.items():
        grid.add_row(f"latency {name}", f"{seconds * 1000:.2f} ms")
    if summary.lateness_p99_s is not None:
        grid.add_row("sent late p99", f"{summary.lateness_p99_s * 1000:.2f} ms")
    for status, count in sorted(summary.errors.items()):
        grid.add_row(f"[red]{status}[/red]", f"{count:,}")
    return grid


def messages(summary: Summary) -> str:
    """One message of each status that calls failed with, a line each."""
    return "".join(
        f"[red]{status}[/red], for instance: {escape(message)}\n"
        for status, message in sorted(summary.messages.items())
    )


def record(
    plan: Plan, summary: Summary, *, rows: int, processes: int, command: Sequence[str]
) -> dict[str, object]:
    """The JSON record of a result: command, machine, versions, load and result."""
    load = dataclasses.asdict(plan)
    load["request_bytes"] = len(load.pop("body"))
    # The values may be secrets.
    load["headers"] = sorted(plan.headers)
    return {
        "command": list(command),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "load": {**load, "rows": rows, "processes": processes},
        "result": dataclasses.asdict(summary),
    }


def _processor() -> str:
    """The processor's name on Linux, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in ("weir", "grpcio", "protobuf", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
