"""The reconciliation: ledgers, access logs and counters of a run against the invariants.

Every attempt of a client, every line of the access log and every counter is compared. What no
fault of the schedule explains is a finding.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.soak import ledger, oracle, server_log, watch
from tests.soak.bad_requests import BAD_REQUESTS
from tests.soak.faults import Change, Window
from tests.soak.findings import Finding
from tests.soak.ledger import ENDED, SENT, Plan, Verdict
from tests.soak.run import DISPOSABLE, RunRecord
from tests.soak.server_log import STATUSES, ServerLog
from tests.soak.trend import Slope, theil_sen

Array = NDArray[Any]

OK, CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 1, 4, 14
RESOURCE_EXHAUSTED = 8

PLANNED: Mapping[Plan, frozenset[int]] = {
    Plan.GOOD: frozenset({OK}),
    Plan.CANCEL: frozenset({OK, CANCELLED}),
    # A request that cannot be done in its time may be refused at once.
    Plan.TIGHT: frozenset({OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED}),
    Plan.EXPIRED: frozenset({OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED}),
    Plan.QUEUED: frozenset({OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED}),
    Plan.BURST: frozenset({OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED}),
    Plan.BAD: frozenset(),
}
"""The statuses of each plan without any fault; those of bad requests depend on the request."""

DRAIN_MARGIN = 0.25
"""An attempt that was sent so long before a SIGTERM is not refused by it; of `late_s`."""
QUEUE_MARGIN = 0.025
"""How long after its deadline a request may begin to run; of `late_s`."""
LOST_LINES_S = 3.0
"""What a server logged so shortly before it was killed may be lost."""
RSS_GROWTH_BYTES = 16 << 20
"""How much the memory of a server may grow in the second half of a run."""
SPARE_DESCRIPTORS, SPARE_THREADS = 16, 8

_MAX_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Overload:
    """What became of the requests of all overloads.

    Attributes:
        refusal_ms: p50 and p99 of the refused ones, from sending.
    """

    sent: int
    answered: int
    refused: int
    seconds: float
    refusal_ms: tuple[float, float]


@dataclass(slots=True)
class Result:
    """What the reconciliation found, with the numbers of the report.

    Attributes:
        answers: checked right answers, by model.
        statuses: ended attempts, by plan, model and status.
        excused: attempts whose failure a fault explains, by fault and status.
        visible: good requests that failed in the end, by status.
        lines: lines of the access logs about attempts.
        latency_ms: by phase, the number of answers and p50, p99 and p99.9.
        send_lag_ms: p50 and p99.
        crash_s: the longest time from a `kill -9` until a client knew.
    """

    findings: list[Finding] = field(default_factory=list)
    sent: int = 0
    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    versions: set[int] = field(default_factory=set)
    statuses: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    excused: Counter[tuple[str, str]] = field(default_factory=Counter)
    visible: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    unfinished: int = 0
    lines: int = 0
    lost_lines: int = 0
    memory: Slope | None = None
    memory_answers_per_s: float = 0.0
    latency_ms: dict[str, tuple[int, float, float, float]] = field(default_factory=dict)
    send_lag_ms: tuple[float, float] = (0.0, 0.0)
    overload: Overload | None = None
    crash_s: float = 0.0
    clients_cpu: list[float] = field(default_factory=list)

    @property
    def checked(self) -> int:
        """Answers that were compared with what they must be, and were right."""
        return self.answers.total()

    def broken(self) -> set[str]:
        """The invariants that do not hold."""
        return {finding.invariant for finding in self.findings}


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of all clients, sorted by their codes; arrays of one length.

    Attributes:
        status: -1 if it has not ended.
    """

    code: Array
    plan: Array
    model: Array
    case: Array
    intended_s: Array
    at_s: Array
    deadline_s: Array
    end_s: Array
    status: Array
    verdict: Array
    version: Array

    def find(self, codes: Array) -> Array:
        """The position of each code; -1 if no client sent it."""
        if not len(self.code):
            return np.full(len(codes), -1)
        position = np.minimum(np.searchsorted(self.code, codes), len(self.code) - 1)
        found: Array = np.where(self.code[position] == codes, position, -1)
        return found


def reconcile(record: RunRecord) -> Result:
    """Compare everything that a run left."""
    result = Result()
    own = [*record.findings, *record.faults.findings]
    own += [each for each in record.watch.findings if not _is_excused(each, record)]
    result.findings += own
    records = ledger.read(record.ledgers)
    attempts = _attempts(records, result)
    _check_ends(attempts, record, result)
    _check_statuses(attempts, record, result)
    _check_visible(attempts, record, result)
    _check_versions(attempts, record, result)
    _check_drains(attempts, record, result)
    _check_crashes(attempts, record, result)
    _check_server(attempts, record, result)
    _check_use(attempts, record, result)
    _measure(attempts, record, result)
    return result


class _Reporter:
    """Adds findings of one kind: the first few, then their number."""

    def __init__(self, result: Result, invariant: str) -> None:
        self._result, self._invariant = result, invariant

    def each(self, positions: Array, times_s: Array, text: Callable[[int], str], what: str) -> None:
        """A finding for each position, by time."""
        order = positions[np.argsort(times_s[positions], kind="stable")]
        for position in order[:_MAX_FINDINGS].tolist():
            finding = Finding(self._invariant, float(times_s[position]), text(position))
            self._result.findings.append(finding)
        if len(order) > _MAX_FINDINGS:
            last = float(times_s[order[_MAX_FINDINGS]])
            more = f"{what}: {len(order) - _MAX_FINDINGS} more"
            self._result.findings.append(Finding(self._invariant, last, more))


def _attempts(records: Array, result: Result) -> Attempts:
    sent, ended = records[records["kind"] == SENT], records[records["kind"] == ENDED]
    sent = sent[np.argsort(sent["code"], kind="stable")]
    ended = ended[np.argsort(ended["at_s"], kind="stable")]
    reporter = _Reporter(result, "I1")
    # The first end counts; each further one is a duplicate.
    codes, first, counts = np.unique(ended["code"], return_index=True, return_counts=True)
    for code in codes[counts > 1][:_MAX_FINDINGS].tolist():
        at_s = float(ended["at_s"][ended["code"] == code][1])
        result.findings.append(Finding("I1", at_s, f"{ledger.wire_id(code)}: answered twice"))
    lone = ended[ended["verdict"] == Verdict.DUPLICATE]
    reporter.each(
        np.flatnonzero(~np.isin(lone["code"], sent["code"])),
        lone["at_s"],
        lambda _: "an answer on a stream to no request of it",
        "answers to no request",
    )
    ended = ended[first]
    size = len(sent)
    position = np.searchsorted(sent["code"], ended["code"])
    is_known = position < size
    is_known[is_known] = sent["code"][position[is_known]] == ended["code"][is_known]
    ended, position = ended[is_known], position[is_known]
    end_s, status = np.full(size, np.inf), np.full(size, -1)
    verdict, version = np.zeros(size, np.int64), np.zeros(size, np.int64)
    end_s[position], status[position] = ended["at_s"], ended["status"]
    verdict[position], version[position] = ended["verdict"], ended["version"]
    result.sent = size
    return Attempts(
        sent["code"], sent["plan"], sent["model"], sent["case"], sent["intended_s"], sent["at_s"],
        sent["deadline_s"].astype(float), end_s, status, verdict, version,
    )  # fmt: skip


def _is_excused(finding: Finding, record: RunRecord) -> bool:
    """Whether a fault, or the stop of the run, explains a failed probe."""
    if not finding.is_excusable:
        return False
    began_s = finding.at_s if finding.began_s is None else finding.began_s
    return any(
        window.start_s <= finding.at_s and began_s <= window.end_s
        for window in record.faults.windows
        if window.is_outage or window.fault == "stop_server"
    )


def _check_ends(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I1 and I2 of the clients: each attempt ends once and in time, and each answer is right."""
    reporter, late_s = _Reporter(result, "I1"), record.schedule.late_s
    open_ = attempts.status < 0
    for killed in record.faults.kills:
        own = ledger.code_of(killed.client, killed.incarnation, 0, 0)
        of_client = ledger.incarnation_of(attempts.code) == ledger.incarnation_of(
            np.array([own], np.uint64)
        )
        # It could not write an end any more; what was overdue before is lost.
        overdue = attempts.at_s + attempts.deadline_s + late_s < killed.at_s
        excused = open_ & of_client & ~overdue
        result.unfinished += int(excused.sum())
        open_ = open_ & ~excused
    lost = open_ | (attempts.verdict == Verdict.LOST)
    reporter.each(
        np.flatnonzero(lost), attempts.at_s, lambda at: f"{_name(attempts, at)}: lost", "lost"
    )
    late = attempts.end_s > attempts.at_s + attempts.deadline_s + late_s
    late &= (attempts.status >= 0) & ~lost
    # A client that is stopped by its fault writes late.
    for window in _windows(record, "stop_client", "kill_client"):
        late &= ~(
            (_client_of(attempts) == DISPOSABLE)
            & (attempts.at_s <= window.end_s)
            & (attempts.end_s >= window.start_s)
        )
    reporter.each(
        np.flatnonzero(late),
        attempts.end_s,
        lambda at: (
            f"{_name(attempts, at)}: {_status(attempts, at)} "
            f"{attempts.end_s[at] - attempts.at_s[at]:.2f} s after it was sent, with a deadline of "
            f"{attempts.deadline_s[at]:g} s"
        ),
        "late",
    )
    complaints = {line["code"]: line["what"] for line in record.complaints}
    _Reporter(result, "I2").each(
        np.flatnonzero(attempts.verdict == Verdict.WRONG),
        attempts.end_s,
        lambda at: f"{_name(attempts, at)}: wrong: {complaints.get(int(attempts.code[at]), '')}",
        "wrong",
    )
    right = attempts.verdict == Verdict.RIGHT
    for model, name in enumerate(oracle.MODELS):
        result.answers[name] = int((right & (attempts.model == model)).sum())
    result.versions = set(
        np.unique(attempts.version[right & (attempts.model == oracle.FINGERPRINT)]).tolist()
    )


def _check_statuses(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I6: the status of each attempt is one of its plan, or a fault at that time explains it."""
    allowed = np.zeros(len(attempts.code), np.int64)
    for plan, statuses in PLANNED.items():
        allowed[attempts.plan == plan] = _mask(statuses)
    cases = np.array([_mask(bad.statuses) for bad in BAD_REQUESTS])
    is_bad = attempts.plan == Plan.BAD
    allowed[is_bad] = cases[attempts.case[is_bad]]
    ended = attempts.status >= 0
    as_planned = ended & (allowed & (1 << np.maximum(attempts.status, 0)) != 0)
    doubtful = np.flatnonzero(ended & ~as_planned & (attempts.verdict != Verdict.LOST))
    explained = np.zeros(len(doubtful), bool)
    for window in record.faults.windows:
        mask = _mask(window.statuses)
        hit = (
            (attempts.at_s[doubtful] <= window.end_s)
            & (attempts.end_s[doubtful] >= window.start_s)
            & (mask & (1 << attempts.status[doubtful]) != 0)
        )
        if window.models:
            hit &= np.isin(attempts.model[doubtful], list(window.models))
        for status in attempts.status[doubtful[hit & ~explained]].tolist():
            result.excused[window.fault, STATUSES[status]] += 1
        explained |= hit
    complaints = {line["code"]: line["what"] for line in record.complaints}
    _Reporter(result, "I6").each(
        doubtful[~explained],
        attempts.end_s,
        lambda at: (
            f"{_name(attempts, at)}: {_status(attempts, at)} after "
            f"{attempts.end_s[at] - attempts.at_s[at]:.3f} s, which nothing explains: "
            f"{complaints.get(int(attempts.code[at]), '')}"
        ),
        "statuses that nothing explains",
    )
    plans, models, codes = attempts.plan[ended], attempts.model[ended], attempts.status[ended]
    keys = plans.astype(np.int64) << 16 | models.astype(np.int64) << 8 | codes
    for key, count in zip(*np.unique(keys, return_counts=True), strict=True):
        own, model, status = Plan(int(key) >> 16), int(key) >> 8 & 0xFF, int(key) & 0xFF
        name = "" if own is Plan.BAD else oracle.MODELS[model]
        result.statuses[own.name.lower(), name, STATUSES[status]] = int(count)


def _check_visible(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I6: a good request that is sent again ends with an answer, unless the outage was too long."""
    good = np.flatnonzero((attempts.plan == Plan.GOOD) & (attempts.status >= 0))
    requests = ledger.request_of(attempts.code[good])
    last = np.flatnonzero(np.append(requests[1:] != requests[:-1], True)) if len(good) else good
    result.requests, result.retries = len(last), len(good) - len(last)
    final = good[last]
    failed = final[(attempts.status[final] != OK) & (attempts.verdict[final] != Verdict.LOST)]
    for status in attempts.status[failed].tolist():
        result.visible[STATUSES[status]] += 1
    half_s = record.schedule.traffic.deadline_s / 2
    for window in record.faults.windows:
        if window.is_outage and window.end_s - window.start_s > half_s:
            is_long = (attempts.intended_s[failed] <= window.end_s) & (
                attempts.end_s[failed] >= window.start_s
            )
            failed = failed[~is_long]
    _Reporter(result, "I6").each(
        failed,
        attempts.end_s,
        lambda at: f"{_name(attempts, at)}: {_status(attempts, at)} in spite of retries",
        "failed in spite of retries",
    )


def _check_versions(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I2: an answer is of a version that was current between its sending and its end."""
    changes: Sequence[Change] = record.faults.changes
    began = np.array([change.began_s for change in changes])
    done = np.array([change.done_s for change in changes])
    current = np.array([1, *(change.version for change in changes)])
    chosen = np.flatnonzero(
        (attempts.verdict == Verdict.RIGHT) & (attempts.model == oracle.FINGERPRINT)
    )
    first = np.searchsorted(done, attempts.at_s[chosen], side="left")
    last = np.searchsorted(began, attempts.end_s[chosen], side="right")
    stale = np.ones(len(chosen), bool)
    for step in range(int((last - first).max(initial=0)) + 1):
        position = first + step
        has = position <= last
        stale &= ~(has & (current[np.minimum(position, len(changes))] == attempts.version[chosen]))
    _Reporter(result, "I2").each(
        chosen[stale],
        attempts.end_s,
        lambda at: f"{_name(attempts, at)}: version {attempts.version[at]}, which was not current",
        "of a version that was not current",
    )


def _check_drains(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I1: what a server had admitted before its SIGTERM is answered."""
    good = attempts.plan == Plan.GOOD
    margin_s = DRAIN_MARGIN * record.schedule.late_s
    for window in _windows(record, "sigterm"):
        ready_s = max(life.ready_s for life in record.server.lives if life.ready_s < window.start_s)
        refused = (
            good
            & (attempts.at_s < window.start_s - margin_s)
            & (attempts.at_s > ready_s)
            & (attempts.end_s > window.start_s)
            & np.isin(attempts.status, [UNAVAILABLE, CANCELLED])
        )
        _Reporter(result, "I1").each(
            np.flatnonzero(refused),
            attempts.end_s,
            lambda at: f"{_name(attempts, at)}: {_status(attempts, at)} while the server drained",
            "not answered while the server drained",
        )


def _check_crashes(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I1: a client knows soon that its server was killed, and not at its deadline only."""
    for window in _windows(record, "kill_server"):
        cut = (
            (attempts.plan == Plan.GOOD)
            & (attempts.at_s < window.start_s)
            & (attempts.end_s > window.start_s)
            & np.isin(attempts.status, [UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED])
        )
        took_s = float((attempts.end_s[cut] - window.start_s).max(initial=0.0))
        result.crash_s = max(result.crash_s, took_s)
        if took_s > record.schedule.late_s:
            what = f"a client knew {took_s:.1f} s after it that the server had been killed"
            result.findings.append(Finding("I1", window.start_s + took_s, what))


def _check_server(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I4, I5 and I10: the log and the counters of each server process."""
    lines = []
    for life in record.server.lives:
        log = server_log.read(life.log, life.number)
        lines.append(log.lines)
        ended_s = min(life.ended_s, record.ended_s)
        for error in log.errors[:_MAX_FINDINGS]:
            result.findings.append(Finding("I10", ended_s, f"server {life.number}: {error}"))
        if (last := record.watch.last.get(life.number)) is None:
            continue
        result.lost_lines += int(watch.total(last[1], "weir_log_dropped_total"))
        if life is record.server.life and record.is_complete:
            _check_counters(log, last, result)
    joined = np.concatenate(lines)
    result.lines = len(joined)
    _check_lines(attempts, joined, record, result)


def _check_counters(log: ServerLog, last: tuple[float, watch.Samples], result: Result) -> None:
    """I4: at rest, each counter is the number of the lines about such requests."""
    at_s, samples = last
    dropped = watch.total(samples, "weir_log_dropped_total")
    missing = 0.0
    for labels, value in watch.labelled(samples, "weir_requests_total"):
        model, version, status = labels["model"], labels["version"], labels["status"]
        # The counters of a version begin again when it is loaded again.
        if log.loads[model, version] != 1:
            continue
        expected = log.requests[model, version, status]
        missing += value - expected
        if not expected <= value <= expected + dropped:
            what = f"{model} {version} {status}: counted {value:g}, in the access log {expected}"
            result.findings.append(Finding("I4", at_s, what))
    answers = {
        (labels["model"], labels["version"]): value
        for labels, value in watch.labelled(samples, "weir_requests_total")
        if labels["status"] == "OK"
    }
    for labels, value in watch.labelled(samples, "weir_request_seconds_count"):
        answered = answers.get((labels["model"], labels["version"]), 0.0)
        if value != answered:
            what = f"weir_request_seconds_count of {labels}: {value:g} for {answered:g} answers"
            result.findings.append(Finding("I8", at_s, what))
    if missing > dropped:
        what = f"{missing:g} requests have no line in the access log, {dropped:g} were dropped"
        result.findings.append(Finding("I4", at_s, what))


def _check_lines(attempts: Attempts, lines: Array, record: RunRecord, result: Result) -> None:
    """I4 and I5: what the clients saw and what the servers logged agree, attempt by attempt."""
    lines = lines[np.argsort(lines["code"], kind="stable")]
    codes = lines["code"]
    for at in np.flatnonzero(codes[1:] == codes[:-1])[:_MAX_FINDINGS].tolist():
        what = f"{ledger.wire_id(int(codes[at]))}: two lines in the access log"
        result.findings.append(Finding("I5", record.ended_s, what))
    position = attempts.find(codes)
    if unknown := int((position < 0).sum()):
        what = f"{unknown} lines in the access log of requests that no client sent"
        result.findings.append(Finding("I4", record.ended_s, what))
    lines, position = lines[position >= 0], position[position >= 0]
    logged, of_version = np.full(len(attempts.code), -1), np.zeros(len(attempts.code), np.int64)
    queue_s = np.full(len(attempts.code), server_log.NOT_RUN)
    logged[position], of_version[position] = lines["status"], lines["version"]
    queue_s[position] = lines["queue_s"]
    _Reporter(result, "I5").each(
        np.flatnonzero(queue_s > attempts.deadline_s + QUEUE_MARGIN * record.schedule.late_s),
        attempts.at_s,
        lambda at: (
            f"{_name(attempts, at)}: run {queue_s[at]:.3f} s after it was queued, its deadline "
            f"was {attempts.deadline_s[at]:.3f} s"
        ),
        "run after their deadlines",
    )
    reporter = _Reporter(result, "I4")
    seen_ok = (attempts.status == OK) & (attempts.verdict != Verdict.WRONG)
    differs = seen_ok & (logged >= 0) & ((logged != OK) | (of_version != attempts.version))
    reporter.each(
        np.flatnonzero(differs),
        attempts.end_s,
        lambda at: (
            f"{_name(attempts, at)}: OK of version {attempts.version[at]}, the server logged "
            f"{STATUSES[int(logged[at])]} of version {of_version[at]}"
        ),
        "OK at the client, and not at the server",
    )
    # What the server answered and the client did not get: it had left, or its server was ended.
    unseen = (logged == OK) & (attempts.status >= 0) & (attempts.status != OK)
    unseen &= ~np.isin(attempts.status, [CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE])
    reporter.each(
        np.flatnonzero(unseen),
        attempts.end_s,
        lambda at: f"{_name(attempts, at)}: {_status(attempts, at)}, the server logged OK",
        "OK at the server, and not at the client",
    )
    unlogged = seen_ok & (logged < 0)
    for life in record.server.lives:
        own = np.flatnonzero(
            unlogged & (attempts.end_s >= life.started_s) & (attempts.end_s <= life.ended_s)
        )
        if life.end == "kill":
            own = own[attempts.end_s[own] < life.ended_s - LOST_LINES_S]
        seen = record.watch.last.get(life.number, (0.0, {}))
        dropped = watch.total(seen[1], "weir_log_dropped_total")
        if len(own) > dropped:
            reporter.each(
                own,
                attempts.end_s,
                lambda at: f"{_name(attempts, at)}: OK, and no line in the access log",
                f"OK, and no line in the log of server {life.number}, which dropped {dropped:g}",
            )


def _check_use(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """I7: memory, descriptors and threads of the last server."""
    life, rest_s = record.server.life, record.start_s + record.schedule.end_of_traffic_s
    uses = [each for each in record.watch.uses if each.life == life.number]
    half_s = max(
        record.start_s + record.schedule.end_of_traffic_s / 2,
        life.ready_s + (rest_s - life.ready_s) / 4,
    )
    tail = [each for each in uses if half_s <= each.at_s <= rest_s]
    slope = theil_sen([each.at_s for each in tail], [each.use.rss_bytes for each in tail])
    result.memory = slope
    if slope is not None:
        answered = (attempts.status == OK) & (attempts.end_s >= half_s) & (attempts.end_s <= rest_s)
        result.memory_answers_per_s = float(answered.sum()) / slope.seconds
        growth = slope.low * slope.seconds
        if growth > RSS_GROWTH_BYTES:
            what = (
                f"memory: +{growth / 2**20:.1f} MiB at least in {slope.seconds:.0f} s, "
                f"the limit is {RSS_GROWTH_BYTES >> 20} MiB"
            )
            result.findings.append(Finding("I7", rest_s, what))
    early = [each.use for each in uses if each.at_s > life.ready_s][:8]
    if not early or not uses:
        return
    end = uses[-1].use
    for what, before, after, spare in (
        ("descriptors", min(use.descriptors for use in early), end.descriptors, SPARE_DESCRIPTORS),
        ("threads", min(use.threads for use in early), end.threads, SPARE_THREADS),
    ):
        if after > before + spare:
            text = f"{what} of the server: {before} at first, {after} at the end"
            result.findings.append(Finding("I7", uses[-1].at_s, text))


def _measure(attempts: Attempts, record: RunRecord, result: Result) -> None:
    """Latencies from the intended times, and how late the clients were."""
    good = (attempts.plan == Plan.GOOD) & (_client_of(attempts) != DISPOSABLE)
    first = good & (attempts.code & np.uint64(0xFF) == 0)
    lag_ms = (attempts.at_s[first] - attempts.intended_s[first]) * 1000
    if len(lag_ms):
        result.send_lag_ms = float(np.percentile(lag_ms, 50)), float(np.percentile(lag_ms, 99))
    answered = good & (attempts.status == OK)
    latency_ms = (attempts.end_s - attempts.intended_s) * 1000
    at_s = attempts.intended_s - record.start_s
    phases: dict[str, Array] = {}
    for phase in record.schedule.phases:
        chosen = latency_ms[answered & (at_s >= phase.start_s) & (at_s < phase.end_s)]
        phases[phase.name] = np.append(phases.get(phase.name, np.zeros(0)), chosen)
    for name, values in phases.items():
        if len(values):
            p50, p99, p999 = np.percentile(values, [50, 99, 99.9]).tolist()
            result.latency_ms[name] = len(values), p50, p99, p999
    burst = attempts.plan == Plan.BURST
    if burst.any():
        refused = burst & (attempts.status == RESOURCE_EXHAUSTED)
        refusal_ms = (attempts.end_s[refused] - attempts.at_s[refused]) * 1000
        p50, p99 = np.percentile(refusal_ms, [50, 99]).tolist() if len(refusal_ms) else (0.0, 0.0)
        result.overload = Overload(
            int(burst.sum()),
            int((burst & (attempts.status == OK)).sum()),
            len(refusal_ms),
            sum(end_s - start_s for start_s, end_s in record.schedule.bursts_s),
            (p50, p99),
        )
    result.clients_cpu = sorted(record.watch.clients_cpu_s.values(), reverse=True)


def _windows(record: RunRecord, *faults: str) -> list[Window]:
    return [window for window in record.faults.windows if window.fault in faults]


def _mask(statuses: Iterable[int]) -> int:
    return sum(1 << status for status in statuses)


def _client_of(attempts: Attempts) -> Array:
    return attempts.code >> np.uint64(56)


def _name(attempts: Attempts, at: int) -> str:
    plan, model = Plan(int(attempts.plan[at])), oracle.MODELS[int(attempts.model[at])]
    if plan is Plan.BAD:
        model = BAD_REQUESTS[int(attempts.case[at])].name
    return f"{ledger.wire_id(int(attempts.code[at]))} ({plan.name.lower()}, {model})"


def _status(attempts: Attempts, at: int) -> str:
    return STATUSES.get(int(attempts.status[at]), "no end")
