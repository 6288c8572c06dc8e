"""`python -m tools.metrics_page`: prints docs/metrics.md, made of what the metrics say of themselves."""

import sys
from collections.abc import Iterator

from weir.server.histogram import ROWS, SECONDS
from weir.server.telemetry.families import Family, Subject
from weir.server.telemetry.metrics import SUBJECTS

# Exported by prometheus-client, and so declared here for the page alone.
_PROCESS = Subject(
    "The process",
    "Of prometheus-client; those of the process on Linux only.",
    (
        Family("process_resident_memory_bytes", "gauge", (), "bytes", "Memory of the process.", "more or larger models, batches or queues; without end: a leak."),
        Family("process_virtual_memory_bytes", "gauge", (), "bytes", "Its address space."),
        Family("process_cpu_seconds_total", "counter", (), "seconds", "Time on a core, of all its threads.", "more work; its rate is how many cores are busy."),
        Family("process_open_fds", "gauge", (), "files", "Open files and connections.", "more clients; near the next one, no more of them."),
        Family("process_max_fds", "gauge", (), "files", "Most of them."),
        Family("process_start_time_seconds", "gauge", (), "seconds since 1970", "When it started.", "it was started again."),
        Family("python_gc_objects_collected_total", "counter", ("generation",), "objects", "Objects that the garbage collector freed."),
        Family("python_gc_objects_uncollectable_total", "counter", ("generation",), "objects", "Objects that it could not free.", "a leak."),
        Family("python_gc_collections_total", "counter", ("generation",), "collections", "How often it ran.", "faster than requests: pauses of a few milliseconds."),
        Family("python_info", "gauge", ("version", "implementation", "major", "minor", "patchlevel"), "1", "1, with the Python it runs on."),
    ),
)  # fmt: skip

PAGE = (*SUBJECTS, _PROCESS)
"""Every section."""

_HEAD = f"""# Metrics

What `/metrics` tells, on the port of `--metrics-port`, for Prometheus. This page is made of the server's own
declarations: `make metrics-page`.

Labels come from closed sets. `model` and `version` are what a request asks for and gets; of a version that leaves for
good, they leave too. Counters begin at 0 when the server starts. The buckets of histograms end, in seconds, at
{", ".join(f"{bound:g}" for bound in SECONDS)}; of rows, at {", ".join(f"{bound:g}" for bound in ROWS)}.
"""


def page() -> str:
    """The text of the page."""
    return "\n".join([_HEAD, *(line for subject in PAGE for line in _section(subject))])


def _section(subject: Subject) -> Iterator[str]:
    yield f"## {subject.title}\n"
    yield f"{subject.text}\n"
    yield "| metric | type | labels | unit | what it tells | a rise means |"
    yield "|---|---|---|---|---|---|"
    for family in subject.families:
        labels = ", ".join(family.labels)
        yield (
            f"| `{family.name}` | {family.kind} | {labels} | {family.unit} | {family.what} "
            f"| {family.rise} |"
        )
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
