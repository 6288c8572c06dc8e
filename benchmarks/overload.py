"""Goodput under overload: Weir, Weir before a change, and Triton, on one graph and one core.

    .venv/bin/python benchmarks/overload.py [--model slow] [--rivals weir triton triton-bounded] \
        [--before TREE] [--loads 0.5 1 3 10] [--seconds 20] [--json FILE [--append]] \
        [--picture FILE]

Models:

- `slow`: 8 rows a call at some 5 ms a row (`lib/slow_model.py`); a deadline of 1 s.
- `pronounce`: the encoder-decoder of `make demo`, 32 words a call and a beam of 16; deadlines of
  0.2, 0.4 and 0.6 s in turn. Triton has no such model.

The server has one core, the load generator the other one. First a closed loop with 8 calls in
flight measures the server's capacity. Then calls arrive at seeded random times, as in a Poisson
process, at multiples of that capacity. A deadline counts from when a call was due. It is sent as
`grpc-timeout`, and the generator cancels the call when it passes.

- Goodput: calls answered OK before their deadline, and before the end of the load; as a share of
  the capacity.
- Refused: calls that ended with another status than DEADLINE_EXCEEDED; the latency of these.
- Recovery: after the highest load the rate drops to half of the capacity. It is the time until the
  last call that fails, or takes more than three times the p99 of the load of 0.5.

A load in which the generator was late, or had no CPU time to spare, is void and repeated. Triton's
queue has no bound by default. `triton-bounded` has what its operator would set for this deadline: a
`max_queue_size` and a timeout that leave time for two batches, with `timeout_action: REJECT`.
`before` is the server of another checkout, `--before`. Several short runs with `--append` count as
one.
"""

import math
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import charts, harness, load, servers, slow_model, triton
from benchmarks.lib.harness import Column, Rival, console
from benchmarks.lib.http2 import framed
from benchmarks.lib.load_generator import DEADLINE_EXCEEDED, RESET, Record, Schedule
from benchmarks.lib.raw import check_answers
from benchmarks.lib.servers import Server
from weir.bench.tally import percentile
from weir.bundle.reader import MODEL
from weir.client.rpc import infer_request
from weir.training.data import load_pairs

WEIR, BEFORE, TRITON, BOUNDED = "weir", "before", "triton", "triton-bounded"
LOADS = (0.5, 0.8, 1.0, 1.5, 3.0, 10.0)
CAPACITY, RECOVERY = "capacity", "recovery"
SLOW, PRONOUNCE = MODELS = slow_model.NAME, "pronounce"
COLUMNS = (
    Column("offered/s", "offered_per_s", ",.1f", "median"),
    Column("in time/s", "goodput_per_s", ",.1f", "median"),
    Column("of capacity", "goodput", ".0%"),
    Column("p99 ms", "p99_ms", ",.0f", "median"),
    Column("refused", "refused", ".0%", "median"),
    Column("after p50 ms", "refused_p50_ms", ",.1f", "median"),
    Column("p99 ms", "refused_p99_ms", ",.1f", "most"),
    Column("too late", "expired", ".0%", "median"),
    Column("normal after s", "recovery_s", ".2f", "most"),
    Column("sent late p99 ms", "late_p99_ms", ".1f", "most"),
    Column("generator", "generator_busy", ".0%", "most"),
)
_ROWS, _WORDS, _BEAM = 8, 32, 16
_DEADLINE_S, _MIXED_S = 1.0, (0.2, 0.4, 0.6)
_BODIES = 32
_IN_FLIGHT = 8
_CAPACITY_S = 5.0
_CONNECTIONS = 8
_MAX_ROWS = 32
_QUEUE = (
    "default_queue_policy {{ timeout_action: REJECT max_queue_size: {size} "
    "default_timeout_microseconds: {timeout_us:.0f} }} "
)
_RECOVERY_LOAD, _RECOVERY_S, _SLOWER = 0.5, 8.0, 3.0
_MOST_LATE_MS, _MOST_BUSY, _ATTEMPTS = 20.0, 0.8, 2
_QUICK_LOADS, _QUICK_SECONDS = (0.5, 3.0), 3.0


Start = Callable[[], AbstractContextManager[Server]]


@dataclass(frozen=True, slots=True)
class Workload:
    """The calls to one model.

    Attributes:
        models: its repository.
        bodies: framed requests, sent in turn.
        timeouts_s: deadlines of the calls, in turn.
        check: compares answers of a server with a reference.
    """

    model: str
    models: Path
    bodies: Sequence[bytes]
    timeouts_s: Sequence[float]
    check: Callable[[Server], None] = lambda _: None

    def closed(self, server: Server, calls: int) -> Schedule:
        """A closed loop that keeps the server busy."""
        return Schedule(
            server.target,
            load.MODEL_INFER,
            self.bodies,
            self._order(calls),
            in_flight=_IN_FLIGHT,
            connections=_CONNECTIONS,
        )

    def open(self, server: Server, due_s: Sequence[float]) -> Schedule:
        """An open loop at given times."""
        calls = len(due_s)
        return Schedule(
            server.target,
            load.MODEL_INFER,
            self.bodies,
            self._order(calls),
            due_s=due_s,
            connections=_CONNECTIONS,
            timeouts_s=[self.timeouts_s[each % len(self.timeouts_s)] for each in range(calls)],
        )

    def _order(self, calls: int) -> list[int]:
        return [each % len(self.bodies) for each in range(calls)]


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=1, can_append=True)
    parser.add_argument("--model", choices=MODELS, default=SLOW)
    parser.add_argument("--demo", type=Path, default=Path(".demo/models"), help="has pronounce")
    parser.add_argument("--rivals", nargs="+", help="default: all that have the model")
    parser.add_argument("--before", type=Path, metavar="TREE", help="a checkout of Weir to compare")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="x capacity")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--queue-size", type=int, default=15, help=f"of {BOUNDED}, in calls")
    parser.add_argument("--queue-timeout-s", type=float, default=0.6, help=f"of {BOUNDED}")
    given = harness.parse(parser)
    if given.quick:
        given.loads, given.seconds = _QUICK_LOADS, _QUICK_SECONDS
    environment = harness.start()
    with tempfile.TemporaryDirectory() as folder:
        workload = slow(Path(folder)) if given.model == SLOW else pronounce(given.demo)
        runs = harness.take_turns(
            rivals(workload, given),
            given.rounds,
            lambda _, server: measure(server, workload, given.loads, given.seconds),
        )
    if given.append:
        runs = harness.appended(harness.earlier(given.json), runs)
    console.print(harness.table(runs, COLUMNS))
    harness.write(given.json, {**environment, "seconds": given.seconds}, runs)
    if given.picture:
        loaded = [run for run in runs if "load" in run.figures]
        panels = {model: [run for run in loaded if run.case.startswith(model)] for model in MODELS}
        charts.goodput(given.picture, {model: found for model, found in panels.items() if found})


def slow(models: Path) -> Workload:
    """Calls of 8 rows to the slow model, which is written into a repository."""
    slow_model.make_bundle(models)
    rows = [{slow_model.INPUT: slow_model.rows_of(_ROWS, seed=each)} for each in range(_BODIES)]
    return Workload(
        SLOW,
        models,
        [load.infer_body(SLOW, **each) for each in rows],
        [_DEADLINE_S],
        lambda server: check_answers(server, SLOW, models / SLOW / "1" / MODEL, rows[:1]),
    )


def pronounce(models: Path) -> Workload:
    """Calls of 32 words of the test set of CMUdict, with a beam of 16."""
    vocabulary = models / PRONOUNCE / "1" / "vocabulary.tokens.txt"
    if not vocabulary.is_file():
        sys.exit(f"{vocabulary} is missing: run `make demo` first")
    ids = {letter: number for number, letter in enumerate(vocabulary.read_text().splitlines())}
    sources = [
        row for row in load_pairs("cmudict-pronounce", "test").sources if ids.keys() >= set(row)
    ]
    chosen = np.random.default_rng(0).permutation(len(sources))[: _BODIES * _WORDS]
    words = [[ids[letter] for letter in sources[each]] for each in chosen]
    starts = range(0, len(words), _WORDS)
    bodies = [_beam_body(words[start : start + _WORDS]) for start in starts]
    return Workload(PRONOUNCE, models, bodies, _MIXED_S)


def _beam_body(words: Sequence[Sequence[int]]) -> bytes:
    lengths = np.array([len(word) for word in words])
    tokens = np.zeros((len(words), lengths.max()), np.int64)
    for row, word in enumerate(words):
        tokens[row, : len(word)] = word
    message = infer_request(PRONOUNCE, {"tokens": tokens, "lengths": lengths})
    message.parameters["beam_width"].int64_param = _BEAM
    return framed(message.SerializeToString())


def rivals(workload: Workload, given: Namespace) -> list[Rival]:
    """The servers to measure, in the order of a round."""
    names, equal = [workload.model], ("--threads", "1", "--instances", "1")
    weir = partial(servers.serving, workload.models, names, *equal)
    found: dict[str, Start] = {}
    if given.before:
        found[BEFORE] = partial(weir, tree=given.before)
    found[WEIR] = weir
    if workload.model == SLOW:
        start = partial(triton.serving, given.work, workload.models, names, max_rows=_MAX_ROWS)
        queue = _QUEUE.format(size=given.queue_size, timeout_us=given.queue_timeout_s * 1e6)
        found |= {TRITON: start, BOUNDED: partial(start, batching=queue)}
    wanted = given.rivals or list(found)
    return [Rival(name, partial(pinned, found[name])) for name in found if name in wanted]


@contextmanager
def pinned(start: Start) -> Iterator[Server]:
    """A server on one core; this process, and the generators that it starts, have another one."""
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        sys.exit(f"expected two cores, one for the server and one for the generator, got {usable}")
    first, second, *_ = sorted(usable)
    os.sched_setaffinity(0, {first})
    try:
        with start() as server:
            os.sched_setaffinity(0, {second})
            yield server
    finally:
        os.sched_setaffinity(0, usable)


def measure(
    server: Server, workload: Workload, loads: Sequence[float], seconds: float
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The capacity, every load, and the recovery from the highest one."""
    workload.check(server)
    capacity_per_s = capacity(server, workload)
    yield f"{workload.model}, {CAPACITY}", {"goodput_per_s": capacity_per_s}
    normal_ms = math.inf
    for number, share in enumerate(sorted(loads)):
        rate_per_s, is_last = share * capacity_per_s, number == len(loads) - 1
        due_s = times_s(rate_per_s, seconds, seed=number)
        if is_last:
            rest_s = times_s(_RECOVERY_LOAD * capacity_per_s, _RECOVERY_S, seed=number + 1)
            due_s += [seconds + each for each in rest_s]
        for _ in range(_ATTEMPTS):
            record = load.send_open(workload.open(server, due_s))
            found = {"load": share, **figures(record, seconds, capacity_per_s)}
            if generator_kept_up(found):
                break
        else:
            sys.exit(f"run void: {workload.model}, {share:g} x: the generator did not keep up")
        if share == _RECOVERY_LOAD:
            normal_ms = found["p99_ms"]
        yield f"{workload.model}, {share:g} x", found
        if is_last:
            yield (
                f"{workload.model}, {RECOVERY}",
                {"recovery_s": recovery_s(record, seconds, normal_ms)},
            )


def capacity(server: Server, workload: Workload) -> float:
    """Calls answered a second in a closed loop; a short queue refuses some of the first."""
    calls = 2 * _IN_FLIGHT
    trial = load.send_open(workload.closed(server, calls))
    calls = max(calls, int(_CAPACITY_S * calls / trial.ended_s.max()))
    record = load.send_open(workload.closed(server, calls))
    return sum(map(bool, record.answers)) / float(record.ended_s.max())


def times_s(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """The times of a Poisson process with exactly as many calls as its rate says."""
    calls = round(rate_per_s * seconds)
    times: list[float] = np.sort(np.random.default_rng(seed).uniform(0, seconds, calls)).tolist()
    return times


def figures(record: Record, seconds: float, capacity_per_s: float) -> dict[str, float]:
    """What became of the calls that were due within `seconds`."""
    calls = record.began_s < seconds
    began_s, ended_s, statuses = (
        each[calls] for each in (record.began_s, record.ended_s, record.statuses)
    )
    taken_ms, late_ms = (ended_s - began_s) * 1000, (record.sent_s[calls] - began_s) * 1000
    is_ok, is_expired = statuses == 0, statuses == DEADLINE_EXCEEDED
    is_refused = ~is_ok & ~is_expired
    goodput_per_s = float((is_ok & (ended_s < seconds)).sum()) / seconds
    found = {
        "offered_per_s": len(began_s) / seconds,
        "goodput_per_s": goodput_per_s,
        "goodput": goodput_per_s / capacity_per_s,
        "expired": float(is_expired.mean()),
        "refused": float(is_refused.mean()),
        "late_p99_ms": percentile(late_ms.tolist(), 99),
        "generator_busy": record.cpu_s / float(record.ended_s.max()),
        **percentiles("", taken_ms[is_ok]),
        **percentiles("refused_", taken_ms[is_refused]),
    }
    for status in set(statuses.tolist()) - {0}:
        name = name_of(status)
        found[name] = float((statuses == status).mean())
        found |= percentiles(f"{name}_", taken_ms[statuses == status])
    return found


def percentiles(prefix: str, taken_ms: NDArray[np.float64]) -> dict[str, float]:
    """The median and the 99th percentile of some latencies; nothing of none."""
    values = taken_ms.tolist()
    return {f"{prefix}p{each}_ms": percentile(values, each) for each in (50, 99) if values}


def name_of(status: int) -> str:
    """The name of a gRPC status."""
    if status == RESET:
        return "reset"
    return next(code.name for code in grpc.StatusCode if code.value[0] == status)


def generator_kept_up(found: Mapping[str, float]) -> bool:
    """Whether the generator sent in time and had CPU time to spare; if not, the load is void."""
    late_ms, busy = found["late_p99_ms"], found["generator_busy"]
    if late_ms <= _MOST_LATE_MS and busy <= _MOST_BUSY:
        return True
    console.print(f"void: the generator sent {late_ms:.1f} ms late at p99, {busy:.0%} busy")
    return False


def recovery_s(record: Record, seconds: float, normal_ms: float) -> float:
    """From the end of a load of `seconds` to the last call that failed or was abnormally slow."""
    is_abnormal = (record.ended_s - record.began_s) * 1000 > _SLOWER * normal_ms
    is_abnormal |= record.statuses != 0
    last_s = record.began_s[is_abnormal].max(initial=0.0)
    return max(0.0, float(last_s) - seconds)


if __name__ == "__main__":
    main()
