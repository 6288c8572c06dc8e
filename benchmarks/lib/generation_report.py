"""Report of `generation.py`: throughput, latency against load, wasted steps, differing answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib.harness import Column, Run, console
from benchmarks.lib.http2 import messages
from benchmarks.lib.load_generator import Record, Schedule
from benchmarks.lib.servers import Server
from weir.bench.tally import percentile
from weir.protocol import inference_pb2 as pb

ONE, WHOLE, STEPS = "one", "whole", "steps"
SATURATED = "saturated"
_THROUGHPUT = (
    Column("calls/s", "calls_per_s"),
    Column("p50 ms", "p50_ms", ".1f"),
    Column("p99 ms", "p99_ms", ".1f"),
    Column("rows a step", "rows_a_step", ".1f", "median"),
    Column("idle rows", "idle_rows", ".1%", "median"),
    Column("CPU µs/call", "cpu_us", ",.0f", "median"),
)
_LATENCY = (
    Column("calls/s", "rate_per_s", ",.0f", "median"),
    Column("p50 ms", "p50_ms", ".1f"),
    Column("p99 ms", "p99_ms", ".1f"),
    Column("answered", "answered", ".1%", "least"),
    Column("sent late, p99 ms", "late_p99_ms", ".1f", "most"),
)
# By recipe: throughput when saturated, and p50 at the rate that saturates whole requests.
_TARGETS = {"pronounce": (1.25, 0.6), "translate": (1.5, 0.5)}


@dataclass(frozen=True, slots=True)
class Workload:
    """A model, the request for each source, and the answers by server and source."""

    model: str
    bodies: Sequence[bytes]
    answers: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict)

    def keep(self, rival: str, schedule: Schedule, record: Record) -> None:
        """Record the answers of a server."""
        kept = self.answers.setdefault(rival, {})
        for source, answer in zip(schedule.order, record.answers, strict=True):
            if answer:
                kept[source] = tokens_of(answer)

    def differing(self, rival: str, other: str) -> tuple[int, int]:
        """Number of sources that two servers answered differently, and that both answered."""
        ours, theirs = self.answers[rival], self.answers[other]
        both = ours.keys() & theirs.keys()
        return sum(ours[source] != theirs[source] for source in both), len(both)


@dataclass(frozen=True, slots=True)
class Work:
    """Counters of the decoder: runs, their rows, and the rows that made a token or an end."""

    steps: float
    rows: float
    useful: float

    @classmethod
    def of(cls, server: Server, model: str) -> Self:
        """A server's counters."""
        having = f'model="{model}"'
        made = ("weir_generation_tokens_total", "weir_generation_finished_total")
        return cls(
            steps=server.total("weir_generation_steps_total", having),
            rows=server.total("weir_batch_rows_sum", having),
            useful=sum(server.total(name, having) for name in made),
        )

    def until(self, later: "Work") -> dict[str, float]:
        """The difference since `before`: rows per step, and the share of wasted rows."""
        rows = later.rows - self.rows
        return {
            "rows_a_step": rows / (later.steps - self.steps),
            "idle_rows": 1 - (later.useful - self.useful) / rows,
        }


def tokens_of(answer: bytes) -> tuple[int, ...]:
    """The tokens of the only row of an answer."""
    response = pb.ModelInferResponse.FromString(messages(answer)[0])
    contents = zip(response.outputs, response.raw_output_contents, strict=True)
    raw = {output.name: data for output, data in contents}
    (count,) = np.frombuffer(raw["output_lengths"], np.int64)
    return tuple(np.frombuffer(raw["output_tokens"], np.int64)[:count].tolist())


def latencies(record: Record) -> dict[str, float]:
    """Latency of the answered calls, their share, and the lateness of the generator."""
    answered = np.array([bool(answer) for answer in record.answers])
    taken_ms = ((record.ended_s - record.began_s) * 1000)[answered].tolist()
    return {
        "p50_ms": percentile(taken_ms, 50),
        "p99_ms": percentile(taken_ms, 99),
        "answered": float(answered.mean()),
        "late_p99_ms": percentile(((record.sent_s - record.began_s) * 1000).tolist(), 99),
    }


def case_of(share: float) -> str:
    """The name of a load: a multiple of the throughput of `whole`."""
    return f"load {share:g}"


def report(workload: Workload, runs: Sequence[Run]) -> None:
    """Medians and spreads over the rounds, ratios with a target, and whether answers agree."""
    saturated = [run for run in runs if run.case == SATURATED]
    console.print(harness.table(saturated, _THROUGHPUT, title=f"{workload.model}: {SATURATED}"))
    loaded = sorted((run for run in runs if run.case != SATURATED), key=lambda run: run.case)
    title = f"{workload.model}: calls at random times, load as a multiple of what {WHOLE} could do"
    console.print(harness.table(loaded, _LATENCY, title=title))
    faster, sooner = _TARGETS.get(workload.model, (None, None))
    for figure, case, target in (
        ("calls_per_s", SATURATED, faster and f"at least {faster}"),
        ("p50_ms", "load 1", sooner and f"at most {sooner}"),
    ):
        harness.print_ratio(runs, figure, case=case, of=STEPS, to=WHOLE, target=target or "")
    for rival in (WHOLE, ONE):
        differing, both = workload.differing(STEPS, rival)
        console.print(f"{STEPS} and {rival}: {differing} of {both} answers differ")
