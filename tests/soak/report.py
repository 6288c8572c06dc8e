"""The report of a run, as Markdown."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.soak import oracle
from tests.soak.controls import Control
from tests.soak.findings import INVARIANTS
from tests.soak.planted import BUGS
from tests.soak.reconcile import RSS_GROWTH_BYTES, Result
from tests.soak.run import RunRecord
from tests.soak.server import Life

_MIB = 1 << 20
_MAX_LAG_MS = 250.0
_MAX_CPU = 0.85


def problems_of(record: RunRecord, result: Result, max_lag_ms: float = _MAX_LAG_MS) -> list[str]:
    """Why a run says nothing: its clients were the bottleneck, or it ended early."""
    problems = []
    if not record.is_complete:
        problems.append("the run was interrupted: this is a partial report")
    if result.send_lag_ms[1] > max_lag_ms:
        problems.append(
            f"the clients sent late: {result.send_lag_ms[1]:.0f} ms at p99, "
            f"the limit is {max_lag_ms:.0f} ms"
        )
    busiest = max(result.clients_cpu, default=0.0) / record.schedule.duration_s
    if busiest > _MAX_CPU:
        problems.append(f"a client used {busiest:.0%} of a core, the limit is {_MAX_CPU:.0%}")
    if not result.checked:
        problems.append("no answer was checked")
    return problems


def verdict(
    result: Result, controls: Sequence[Control], problems: Sequence[str]
) -> tuple[bool, str]:
    """Whether a run is passed, and that in a sentence."""
    missed = [control.bug for control in controls if not control.is_caught]
    if result.findings:
        return False, f"FAILED: {len(result.findings)} findings."
    if missed:
        return False, f"VOID: planted bugs that were not caught: {', '.join(missed)}."
    if problems:
        return False, f"INVALID: {'; '.join(problems)}."
    caught = f"{len(controls)} of {len(controls)} planted bugs caught"
    return True, (
        f"PASSED: {result.checked:,} answers checked, 0 wrong, 0 lost; "
        f"{caught if controls else 'no bug was planted'}."
    )


def render(
    record: RunRecord,
    result: Result,
    controls: Sequence[Control],
    problems: Sequence[str],
    command: str,
) -> str:
    """The whole report."""
    schedule = record.schedule
    minutes = (record.ended_s - record.start_s) / 60
    _, sentence = verdict(result, controls, problems)
    parts = [
        "# Soak",
        f"**{sentence}**",
        *(["PARTIAL: the run was interrupted."] if not record.is_complete else []),
        _facts(
            {
                "command": f"`{command}`",
                "seed": str(schedule.seed),
                "duration": f"{minutes:.1f} minutes of {schedule.duration_s / 60:.1f}",
                "machine": _machine(),
                "versions": _versions(),
                "rate": f"{schedule.traffic.good + schedule.traffic.disposable:.0f} good requests "
                f"a second, open loop, Poisson",
            }
        ),
        "## Answers",
        _bound(result),
        _table(
            ("model", "right answers"),
            [(name, f"{result.answers[name]:,}") for name in oracle.MODELS],
        ),
        _attempts(record, result),
        "### Statuses",
        _statuses(result),
        "## Faults",
        _table(
            ("fault", "times", "failures that it explains"),
            [
                (name, str(times), _excused(result, name))
                for name, times in sorted(record.faults.made.items())
            ],
        ),
        "Requests of the hostile client, which are faults too: "
        + ", ".join(f"{count:,} {plan}" for plan, count in _hostile(result))
        + ".",
        "## Servers",
        _table(
            ("process", "ready after", "lived", "end", "exit code"),
            [_life(life, record) for life in record.server.lives],
        ),
        "## Planted bugs",
        _controls(controls),
        "## Memory, descriptors, threads",
        _memory(result),
        _use(record),
        "## Latency",
        _latency(result),
        _overload(result),
        "## Readiness and metrics",
        _readiness(record),
        "## Invariants",
        _table(
            ("", "invariant", "findings"),
            [
                (name, text, str(sum(each.invariant == name for each in result.findings)))
                for name, text in INVARIANTS.items()
            ],
        ),
        *_findings(record, result),
    ]
    return "\n\n".join(_one_sentence_a_line(part) for part in parts if part) + "\n"


def _attempts(record: RunRecord, result: Result) -> str:
    return (
        f"Sent attempts: {result.sent:,}; good requests: {result.requests:,}, with "
        f"{result.retries:,} retries. "
        f"Good requests that failed in the end: {_counts(result.visible)}. "
        f"Attempts that a killed client left open: {result.unfinished}. "
        f"Versions of `fingerprint` that answered: {len(result.versions)}. "
        f"The access logs of {len(record.server.lives)} server processes have {result.lines:,} "
        f"lines about these attempts; {result.lost_lines:,} lines were dropped and counted."
    )


def _latency(result: Result) -> str:
    rows = [
        (name, f"{count:,}", f"{p50:.1f}", f"{p99:.1f}", f"{p999:.1f}")
        for name, (count, p50, p99, p999) in result.latency_ms.items()
    ]
    lag_p50, lag_p99 = result.send_lag_ms
    cpu = ", ".join(f"{seconds:.0f} s" for seconds in result.clients_cpu[:4])
    return (
        "From the intended time of sending, of good requests of the steady clients.\n\n"
        + _table(("phase", "answers", "p50 ms", "p99 ms", "p99.9 ms"), rows)
        + f"\n\nThe clients sent {lag_p50:.1f} ms (p50) and {lag_p99:.1f} ms (p99) after the "
        f"intended time. The CPU of the busiest: {cpu}."
    )


def _overload(result: Result) -> str:
    found = result.overload
    if found is None:
        return ""
    return (
        f"Overloads: {found.sent:,} requests of 10 ms with a deadline of 1 s in "
        f"{found.seconds:.0f} s; {found.answered:,} were answered in time, and {found.refused:,} "
        f"refused, after {found.refusal_ms[0]:.1f} ms at p50 and {found.refusal_ms[1]:.1f} ms "
        f"at p99. After a `kill -9`, the last client knew within {result.crash_s:.2f} s."
    )


def _readiness(record: RunRecord) -> str:
    seen = record.watch
    return (
        f"The server said {seen.probes:,} times that it is ready, and each time an inference was "
        f"made at once. {seen.scrapes:,} scrapes, and {seen.missed_scrapes} without an answer."
    )


def _one_sentence_a_line(part: str) -> str:
    return part if part.startswith(("|", "-")) else re.sub(r"\. (?=[A-Z\d])", ".\n", part)


def _bound(result: Result) -> str:
    if not result.checked:
        return "No answer was checked."
    wrong = sum(each.invariant == "I2" for each in result.findings)
    if wrong:
        return f"N = {result.checked:,} right answers, {wrong} wrong."
    return (
        f"N = {result.checked:,} checked answers, 0 wrong: with 95 % confidence fewer than "
        f"3/N = {3 / result.checked:.1e} of all answers are wrong."
    )


def _statuses(result: Result) -> str:
    names = sorted({status for _, _, status in result.statuses}, key=lambda name: name != "OK")
    rows = []
    for plan, model in sorted({(plan, model) for plan, model, _ in result.statuses}):
        counts = [result.statuses[plan, model, name] for name in names]
        rows.append((plan, model, *(f"{count:,}" if count else "" for count in counts)))
    return _table(("plan", "model", *names), rows)


def _excused(result: Result, fault: str) -> str:
    found = {status: count for (name, status), count in result.excused.items() if name == fault}
    return ", ".join(f"{count} {status}" for status, count in sorted(found.items()))


def _hostile(result: Result) -> list[tuple[str, int]]:
    totals: dict[str, int] = {}
    for (plan, _, _), count in result.statuses.items():
        if plan != "good":
            totals[plan] = totals.get(plan, 0) + count
    return sorted(totals.items())


def _life(life: Life, record: RunRecord) -> tuple[str, ...]:
    lived_s = min(life.ended_s, record.ended_s + 60) - life.started_s
    return (
        str(life.number),
        f"{life.ready_s - life.started_s:.1f} s",
        f"{lived_s:.0f} s",
        life.end,
        "" if life.exit_code is None else str(life.exit_code),
    )


def _controls(controls: Sequence[Control]) -> str:
    if not controls:
        return "None were planted in this run."
    rows = []
    for control in controls:
        doc = (BUGS[control.bug].plant.__doc__ or "").strip().rstrip(".")
        if control.finding is None:
            rows.append((control.bug, doc, "**not caught**: " + control.other[:200], ""))
        else:
            by = f"{control.finding.invariant}: {control.finding.what[:120]}"
            rows.append((control.bug, doc, by, f"{control.after:,}"))
    return _table(("bug", "what it does", "caught by", "after answers"), rows)


def _memory(result: Result) -> str:
    slope = result.memory
    if slope is None:
        return "The run was too short for a slope."
    hour = 3600 / _MIB
    by_answer = ""
    if result.memory_answers_per_s:
        by_answer = f", or {slope.value / result.memory_answers_per_s:.1f} bytes an answer"
    return (
        f"Resident memory of the server in the last {slope.seconds:.0f} s: slope "
        f"{slope.value * hour:+.2f} MiB an hour (Theil-Sen; 95 % confidence "
        f"{slope.low * hour:+.2f} to {slope.high * hour:+.2f}){by_answer}. A run fails if the "
        f"lower bound means more than {RSS_GROWTH_BYTES >> 20} MiB in that time."
    )


def _use(record: RunRecord) -> str:
    life = record.server.life
    uses = [
        each.use
        for each in record.watch.uses
        if each.life == life.number and each.at_s > life.ready_s
    ]
    if not uses:
        return ""
    chosen = {"first": uses[0], "middle": uses[len(uses) // 2], "last": uses[-1]}
    return _table(
        (f"server {life.number}", "memory MiB", "descriptors", "threads", "CPU s"),
        [
            (
                name,
                f"{use.rss_bytes / _MIB:.1f}",
                str(use.descriptors),
                str(use.threads),
                f"{use.cpu_s:.0f}",
            )
            for name, use in chosen.items()
        ],
    )


def _findings(record: RunRecord, result: Result) -> list[str]:
    if not result.findings:
        return []
    lines = [
        f"- {each.invariant} at {each.at_s - record.start_s:.2f} s: {each.what}"
        for each in sorted(result.findings, key=lambda each: each.at_s)
    ]
    return ["## Findings", "\n".join(lines)]


def _facts(facts: dict[str, str]) -> str:
    return _table(("", ""), list(facts.items()))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def _counts(counts: dict[str, int]) -> str:
    found = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return found or "0"


def _machine() -> str:
    model = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {platform.system()} {platform.release()}"


def _versions() -> str:
    names = ("weir", "grpcio", "onnxruntime", "numpy")
    found = {}
    for name in names:
        for package in (name, f"{name}-gpu"):
            try:
                found[name] = version(package)
            except ModuleNotFoundError:
                continue
            break
    return f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {number}" for name, number in found.items()
    )
