"""Parallelism of a model: threads of an operator and instances, chosen by a short measurement.

    1 thread, 1 instance      rows are short, or nothing below is clearly faster
    all cores, 1 instance     a batch is clearly faster, and a single row too
    1 thread, some instances  several parts of a batch side by side are clearly faster than it alone

Rules:
- Runs on one thread are measured in CPU time, all others in elapsed time. Other work on the machine
  can therefore hide a gain, but a gain that is found is real.
- One session exists at a time: the weights are in memory once.
- A session has a fixed number of threads, so each number that is tried needs another session.
- A network is measured once. Its next version, which has other weights, keeps the choice.
- Without inputs to measure with, or if the measurement fails: one thread and one instance.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from weir.bundle import graph_nodes
from weir.bundle.protobuf_wire import MalformedError
from weir.server.config import ModelSettings
from weir.server.errors import ServerError
from weir.server.runtime.session import Session
from weir.server.threads import SupervisedThread

Inputs = Mapping[str, NDArray[Any]]
# Makes the inputs of a batch, by its number of rows; None if they are not known.
InputsOf = Callable[[int], Inputs | None]

# For shorter rows the transport takes as long as the model, and another core gains nothing.
# LeNet-5 on two cores, 8 x 16 in flight: 15,300 calls/s, with two instances 12,900, with two
# threads 14,200 (28 us a row). AlexNet takes 8 ms a row, Inception-32 0.8 ms.
_MIN_ROW_S = 0.0002
# A smaller gain is not worth the cores that it takes from other models and from the transport.
_MIN_GAIN = 1.25
# The gain of one choice over another that has gained `_MIN_GAIN` already.
_CLEARLY_BETTER = 1.1
# The rows in flight for which the choice is made.
_ROWS = 16
# With more instances, each would run a batch of one or two of those rows.
_MAX_INSTANCES = 8
# From here on, half of the cores are tried too.
_MANY_CORES = 4
# The batch is cut so that a run takes at most this long; a single row may take longer.
_MAX_RUN_S = 0.3
# Runs of one kind: at least so many and so long, and no more after `_MAX_RUNS_S`.
_MIN_RUNS = 3
_MIN_RUNS_S = 0.06
_MAX_RUNS_S = 0.3
# The runs before these, which only show whether rows are short.
_FIRST_RUNS_S = 0.01
# If creating a session takes longer, no other is created; if one row does, nothing is measured.
_MAX_CREATION_S = 5.0
_MAX_ROW_S = 1.0


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Threads of an operator, batches that run at the same time, and what decided them."""

    threads: int = 1
    instances: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A choice, and the network it was measured for; see `network_of`."""

    network: str
    parallelism: Parallelism


@dataclass(frozen=True, slots=True)
class RowTimes:
    """Seconds per row: in a batch, and of a row alone."""

    in_batch_s: float
    alone_s: float


class SessionSlot:
    """The session of a graph; one with another number of threads replaces it.

    Args:
        open_session: makes a session with this number of threads.
        session: the first one, with one thread.
        creation_s: how long that took.
    """

    def __init__(
        self, open_session: Callable[[int], Session], session: Session, creation_s: float
    ) -> None:
        self._open_session = open_session
        self.session = session
        self.creation_s = creation_s
        self._threads = 1

    def reopen(self, threads: int) -> Session:
        """The session with this number of threads; the previous one is freed first."""
        if threads != self._threads:
            if self._threads:
                del self.session
            # Until the next line succeeds there is no session.
            self._threads = 0
            self.session = self._open_session(threads)
            self._threads = threads
        return self.session


def fixed(
    settings: ModelSettings, *, provider: str, cores: int, is_of_pair: bool = False
) -> Parallelism | None:
    """The parallelism that needs no measurement; None if it does.

    Args:
        settings: the operator's, then those of a `config.pbtxt`.
        is_of_pair: whether it is a graph of an encoder-decoder.
    """
    threads = settings.threads if isinstance(settings.threads, int) else None
    instances = settings.instances if isinstance(settings.instances, int) else None
    given = [name for name, each in (("threads", threads), ("instances", instances)) if each]
    if given:
        reason = f"setting{'s' if len(given) > 1 else ''} {' and '.join(given)}"
        return Parallelism(threads or 1, instances or 1, reason)
    if provider != "cpu":
        return Parallelism(reason=f"provider {provider}")
    if cores == 1:
        return Parallelism(reason="one usable core")
    if is_of_pair:
        # Alone, an encoder may gain from two threads. Beside the decoder's steps they cost a third
        # of the throughput of `pronounce` on two cores.
        return Parallelism(reason="encoder and decoder run at the same time")
    return None


def network_of(graph: bytes) -> str:
    """A digest of a graph's inputs, operators and shapes of weights, without their values."""
    digest = hashlib.sha256()
    try:
        model = graph_nodes.read(graph)
        for value in model.graph.input_messages():
            digest.update(value)
        for node in model.every_node():
            digest.update(f"{node.domain}/{node.type};".encode())
        for _, message in model.graph.initializer_messages():
            tensor = graph_nodes.constant(message)
            digest.update(f"{tensor.type}{list(tensor.shape)};".encode())
    except MalformedError:
        digest.update(graph)
    return digest.hexdigest()


def measure(
    slot: SessionSlot,
    inputs_of: InputsOf,
    *,
    cores: int,
    max_rows: int,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.thread_time,
) -> Parallelism:
    """Choose the parallelism of a graph; the slot then holds a session with those threads.

    Args:
        max_rows: of a batch.
        cpu_clock: CPU time of the calling thread.
    """
    try:
        parallelism = _measure(
            slot,
            inputs_of,
            cores=cores,
            max_rows=max_rows,
            instances=min(cores, _MAX_INSTANCES),
            clock=clock,
            cpu_clock=cpu_clock,
        )
    # A thread that cannot start is a RuntimeError.
    except (ServerError, MemoryError, RuntimeError) as error:
        parallelism = Parallelism(reason=f"the measurement failed: {error}")
    slot.reopen(parallelism.threads)
    return parallelism


def _measure(
    slot: SessionSlot,
    inputs_of: InputsOf,
    *,
    cores: int,
    max_rows: int,
    instances: int,
    clock: Callable[[], float],
    cpu_clock: Callable[[], float],
) -> Parallelism:
    row = inputs_of(1)
    if row is None:
        return Parallelism(reason="no inputs to measure with")
    first_s = _seconds_of(slot.session, row, cpu_clock)
    if first_s > _MAX_ROW_S:
        return Parallelism(reason=f"a row takes {first_s:.1f} s, above {_MAX_ROW_S:g} s")
    alone_s = _best(slot.session, row, cpu_clock, least_s=0, most_s=_FIRST_RUNS_S)
    rows = max(1, min(_ROWS, max_rows, int(_MAX_RUN_S / max(alone_s, 1e-9))))
    batch = inputs_of(rows) if rows > 1 else None
    if batch is None:
        batch, rows = row, 1
    # A few runs suffice: other work on the machine does not lengthen CPU time much.
    in_batch_s = _best(slot.session, batch, cpu_clock, least_s=0, most_s=_FIRST_RUNS_S) / rows
    if in_batch_s < _MIN_ROW_S:
        return Parallelism(
            reason=f"a row takes {in_batch_s * 1e6:.0f} us, below {_MIN_ROW_S * 1e6:.0f} us"
        )

    def times_of(session: Session, clock: Callable[[], float]) -> RowTimes:
        row_s = _best(session, row, clock)
        return RowTimes(_best(session, batch, clock) / rows if rows > 1 else row_s, row_s)

    one_thread = times_of(slot.session, cpu_clock)
    concurrent_s = None
    if instances > 1:
        size = max(1, rows // instances)
        part = (inputs_of(size) if size > 1 else None) or row
        runs = max(2, int(_MIN_RUNS_S / (size * one_thread.in_batch_s)))
        concurrent_s = _run_concurrently(slot.session, part, instances, runs, clock)
        concurrent_s /= instances * size
    by_threads = {}
    if slot.creation_s <= _MAX_CREATION_S:
        for threads in thread_counts(cores):
            by_threads[threads] = times_of(slot.reopen(threads), clock)
    return choose(one_thread, by_threads, instances, concurrent_s, rows=rows)


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads to try besides one."""
    # Many cores may be the hardware threads of half as many.
    return [cores] if cores < _MANY_CORES else [cores // 2, cores]


def choose(
    one_thread: RowTimes,
    by_threads: Mapping[int, RowTimes],
    instances: int,
    concurrent_s: float | None,
    *,
    rows: int,
) -> Parallelism:
    """The parallelism for these times.

    Args:
        one_thread: of a session with one thread.
        by_threads: of sessions with more threads, by their number.
        concurrent_s: seconds per row of `instances` runs at the same time, each on one thread; None
            if there may be one instance only.
        rows: of the measured batch, for the text.
    """
    measured = [f"1 thread {_text(one_thread, rows)}"]
    measured += [f"{number} threads {_text(by_threads[number], rows)}" for number in by_threads]
    if concurrent_s is not None:
        measured.append(f"{instances} instances {concurrent_s * rows * 1e3:.1f} ms")
    what = "1 row" if rows == 1 else f"{rows} rows, and one alone"
    reason = f"{what}: {', '.join(measured)}"
    threads, best = 1, one_thread
    for number, times in sorted(by_threads.items()):
        needed = _MIN_GAIN if threads == 1 else _CLEARLY_BETTER
        is_faster = best.in_batch_s >= needed * times.in_batch_s
        # Inception-32 on two threads: 16 rows 1.6, one row 0.98; served, with one call in flight,
        # 650 calls/s instead of 780. AlexNet: 1.8 and 1.5, 92 calls/s instead of 62.
        if is_faster and one_thread.alone_s >= _MIN_GAIN * times.alone_s:
            threads, best = number, times
    # Instances cut a batch into smaller ones than are measured here: AlexNet, 16 in flight, answers
    # 217 calls/s on two threads (mean batch 9.8) and 187 with two instances (4.2).
    needed = _MIN_GAIN if threads == 1 else _CLEARLY_BETTER
    if concurrent_s is not None and best.in_batch_s >= needed * concurrent_s:
        gain = best.in_batch_s / concurrent_s
        other = "one" if threads == 1 else f"{threads} threads"
        verdict = f"{instances} instances are {gain:.2f} times as fast as {other}"
        threads = 1
    else:
        gain = one_thread.in_batch_s / best.in_batch_s
        verdict = (
            f"{threads} threads are {gain:.2f} times as fast as one"
            if threads > 1
            else f"none is {_MIN_GAIN:g} times as fast for a batch and for a row alone"
        )
        instances = 1
    return Parallelism(threads, instances, f"{reason}: {verdict}")


def _text(times: RowTimes, rows: int) -> str:
    alone = f"{times.alone_s * 1e3:.1f} ms"
    return alone if rows == 1 else f"{times.in_batch_s * rows * 1e3:.1f} and {alone}"


def _best(
    session: Session,
    inputs: Inputs,
    clock: Callable[[], float],
    *,
    least_s: float = _MIN_RUNS_S,
    most_s: float = _MAX_RUNS_S,
) -> float:
    """The shortest of a few runs after the first one, which allocates memory."""
    total_s, best_s, runs = _seconds_of(session, inputs, clock), math.inf, 0
    while not runs or (total_s < most_s and (runs < _MIN_RUNS or total_s < least_s)):
        run_s = _seconds_of(session, inputs, clock)
        best_s, total_s, runs = min(best_s, run_s), total_s + run_s, runs + 1
    return best_s


def _seconds_of(session: Session, inputs: Inputs, clock: Callable[[], float]) -> float:
    started_s = clock()
    session.run(inputs)
    return clock() - started_s


def _run_concurrently(
    session: Session, inputs: Inputs, instances: int, runs: int, clock: Callable[[], float]
) -> float:
    """Seconds of a run while `instances` runs happen at the same time: the best of a few rounds."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(runs):
                session.run(inputs)
        except Exception as error:  # noqa: BLE001 - raised by the caller
            failures.append(error)

    best_s, total_s, rounds = math.inf, 0.0, 0
    while not rounds or (total_s < _MAX_RUNS_S and rounds < _MIN_RUNS):
        threads = [
            SupervisedThread(target=work, name=f"weir-measure-{number}", daemon=True)
            for number in range(instances)
        ]
        started_s = clock()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        round_s = clock() - started_s
        best_s, total_s, rounds = min(best_s, round_s / runs), total_s + round_s, rounds + 1
    return best_s
