"""`python -m tools.metrics_page`: prints docs/metrics.md from the declarations of the metrics."""

import sys
from collections.abc import Iterator

from weir.server.telemetry.metric_family import Family, MetricGroup
from weir.server.telemetry.metrics import GROUPS
from weir.server.transport.call_stats import ROWS, SECONDS

# prometheus-client exports these; they are declared here for the page.
_PROCESS = MetricGroup(
    "Process",
    "Exported by prometheus-client. The metrics `process_…` exist on Linux only.",
    (
        Family(
            "process_resident_memory_bytes", "gauge", (), "bytes", "Resident memory.",
            "more or larger models, batches or queues. If it never stops: a memory leak.",
        ),
        Family("process_virtual_memory_bytes", "gauge", (), "bytes", "Size of the address space."),
        Family(
            "process_cpu_seconds_total", "counter", (), "seconds", "CPU time of all threads.",
            "more work. Its rate is the number of busy cores.",
        ),
        Family(
            "process_open_fds", "gauge", (), "files", "Open files and connections.",
            "more clients. At process_max_fds no client can connect.",
        ),
        Family("process_max_fds", "gauge", (), "files", "The most open files and connections."),
        Family(
            "process_start_time_seconds", "gauge", (), "seconds since 1970", "Time of the start.",
            "that the process restarted.",
        ),
        Family(
            "python_gc_objects_collected_total", "counter", ("generation",), "objects",
            "Objects that the garbage collector freed.",
        ),
        Family(
            "python_gc_objects_uncollectable_total", "counter", ("generation",), "objects",
            "Objects that the garbage collector could not free.", "a memory leak.",
        ),
        Family(
            "python_gc_collections_total", "counter", ("generation",), "collections",
            "Runs of the garbage collector.",
            "more work. If it rises faster than the requests: pauses of a few milliseconds.",
        ),
        Family(
            "python_info", "gauge", ("version", "implementation", "major", "minor", "patchlevel"),
            "1", "1; the labels are the version of Python.",
        ),
    ),
)  # fmt: skip

PAGE = (*GROUPS, _PROCESS)
"""Every section of the page."""

_HEAD = f"""# Metrics

The server exports these metrics at `/metrics` on the port of `--metrics-port`, for Prometheus.
This page is generated from their declarations: `make metrics-page`.

Labels come from closed sets.
`model` and `version` name the version that answers a request.
The series of a version disappear when the version is removed.
Counters start at 0 when the server starts.
The upper bounds of the histograms' buckets are, in seconds,
{", ".join(f"{bound:g}" for bound in SECONDS)};
in rows, {", ".join(f"{bound:g}" for bound in ROWS)}.
"""


def page() -> str:
    """The text of the page."""
    return "\n".join([_HEAD, *(line for group in PAGE for line in _section(group))])


def _section(group: MetricGroup) -> Iterator[str]:
    yield f"## {group.title}\n"
    yield f"{group.description}\n"
    yield "| metric | type | labels | unit | description | a rise means |"
    yield "|---|---|---|---|---|---|"
    for family in group.families:
        labels = ", ".join(family.labels)
        yield (
            f"| `{family.name}` | {family.kind} | {labels} | {family.unit} "
            f"| {family.description} | {family.rise} |"
        )
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
