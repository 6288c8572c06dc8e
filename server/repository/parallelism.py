"""Parallelism of a model: threads of an operator and instances, chosen by a short measurement.

    1 thread, 1 instance      rows are short, or nothing below is clearly faster
    all cores, 1 instance     a batch is clearly faster, and a single row too
    1 thread, some instances  several parts of a batch side by side are clearly faster than it alone

Rules:
- Runs on one thread are measured in CPU time, all others in elapsed time. Other work on the machine
  can therefore hide a gain, but never feign one.
- One session exists at a time: the weights are in memory once.
- The number of threads of a session is fixed, so each other number needs another session.
- A network is measured once. Its next version, which has other weights, takes the choice over.
- Without inputs to measure with, and where a measurement fails, it is one thread and one instance.
"""

import hashlib
import math
import threading
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

Inputs = Mapping[str, NDArray[Any]]
# The inputs of a batch of so many rows; None if they are not known.
InputsOf = Callable[[int], Inputs | None]

# Below, the transport takes as long as the model, and another core for the model gains nothing.
# LeNet-5 on two cores, 8 x 16 in flight: 15,300 calls/s, with two instances 12,900, with two
# threads 14,200 (28 us a row). AlexNet takes 8 ms a row, Inception-32 0.8 ms.
_MIN_ROW_S = 0.0002
# A smaller gain is not worth the cores that it takes from other models and from the transport.
_MIN_GAIN = 1.25
# Of one choice over another that has a gain itself.
_CLEARLY_BETTER = 1.1
# Rows in flight that the choice is made for.
_ROWS = 16
# More instances would cut a batch into pieces that are not worth a run each.
_MOST_INSTANCES = 8
_MANY_CORES = 4
# A run is not longer, unless one row is.
_RUN_S = 0.3
# A few runs are measured, for so long at least and at most. Before, a few show how short rows are.
_REPEATED = 3
_REPEATED_S = 0.06
_MOST_S = 0.3
_QUICK_S = 0.01
# Creating another session, or a single row, may not take longer.
_MOST_CREATION_S = 5.0
_MOST_ROW_S = 1.0


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
        open_session: makes a session with so many threads.
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
        """The session with so many threads; the last one is freed first."""
        if threads != self._threads:
            if self._threads:
                del self.session
            # There is none while another is made, nor after that has failed.
            self._threads = 0
            self.session = self._open_session(threads)
            self._threads = threads
        return self.session


def fixed(settings: ModelSettings, *, provider: str, cores: int) -> Parallelism | None:
    """The parallelism that needs no measurement; None if it does.

    Args:
        settings: the operator's, then those of a `config.pbtxt`.
    """
    threads = settings.threads if isinstance(settings.threads, int) else None
    instances = settings.instances if isinstance(settings.instances, int) else None
    if threads or instances:
        return Parallelism(threads or 1, instances or 1, "setting")
    if provider != "cpu":
        return Parallelism(reason=f"provider {provider}")
    if cores == 1:
        return Parallelism(reason="one usable core")
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
    may_have_instances: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.thread_time,
) -> Parallelism:
    """Choose the parallelism of a graph; the slot then holds a session of so many threads.

    Args:
        max_rows: of a batch.
        may_have_instances: whether several batches may run at the same time.
        cpu_clock: CPU time of the calling thread.
    """
    instances = min(cores, _MOST_INSTANCES) if may_have_instances else 1
    try:
        parallelism = _measure(
            slot,
            inputs_of,
            cores=cores,
            max_rows=max_rows,
            instances=instances,
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
    if first_s > _MOST_ROW_S:
        return Parallelism(reason=f"a row takes {first_s:.1f} s")
    alone_s = _best(slot.session, row, cpu_clock, least_s=0, most_s=_QUICK_S)
    rows = max(1, min(_ROWS, max_rows, int(_RUN_S / max(alone_s, 1e-9))))
    batch = inputs_of(rows) if rows > 1 else None
    if batch is None:
        batch, rows = row, 1
    # Few runs tell this: CPU time is never too short.
    in_batch_s = _best(slot.session, batch, cpu_clock, least_s=0, most_s=_QUICK_S) / rows
    if in_batch_s < _MIN_ROW_S:
        return Parallelism(reason=f"a row takes {in_batch_s * 1e6:.0f} us")

    def times_of(session: Session, clock: Callable[[], float]) -> RowTimes:
        row_s = _best(session, row, clock)
        return RowTimes(_best(session, batch, clock) / rows if rows > 1 else row_s, row_s)

    one_thread = times_of(slot.session, cpu_clock)
    side_by_side_s = None
    if instances > 1:
        size = max(1, rows // instances)
        part = (inputs_of(size) if size > 1 else None) or row
        runs = max(2, int(_REPEATED_S / (size * one_thread.in_batch_s)))
        side_by_side_s = _side_by_side(slot.session, part, instances, runs, clock)
        side_by_side_s /= instances * size
    by_threads = {}
    if slot.creation_s <= _MOST_CREATION_S:
        for threads in thread_counts(cores):
            by_threads[threads] = times_of(slot.reopen(threads), clock)
    return choose(one_thread, by_threads, instances, side_by_side_s, rows=rows)


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads to try besides one."""
    # Many cores may be the hardware threads of half as many.
    return [cores] if cores < _MANY_CORES else [cores // 2, cores]


def choose(
    one_thread: RowTimes,
    by_threads: Mapping[int, RowTimes],
    instances: int,
    side_by_side_s: float | None,
    *,
    rows: int,
) -> Parallelism:
    """The parallelism for these times.

    Args:
        by_threads: of one run, on more threads than one.
        side_by_side_s: per row, of `instances` runs at the same time on one thread each.
    """
    sides = [f"1 thread {_text(one_thread, rows)}"]
    sides += [f"{number} threads {_text(by_threads[number], rows)}" for number in by_threads]
    if side_by_side_s is not None:
        sides.append(f"{instances} instances {side_by_side_s * rows * 1e3:.1f} ms")
    reason = f"{rows} rows, and one alone: {', '.join(sides)}"
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
    if side_by_side_s is not None and best.in_batch_s >= needed * side_by_side_s:
        threads = 1
    else:
        instances = 1
    return Parallelism(threads, instances, reason)


def _text(times: RowTimes, rows: int) -> str:
    return f"{times.in_batch_s * rows * 1e3:.1f} and {times.alone_s * 1e3:.1f} ms"


def _best(
    session: Session,
    inputs: Inputs,
    clock: Callable[[], float],
    *,
    least_s: float = _REPEATED_S,
    most_s: float = _MOST_S,
) -> float:
    """The least duration of a few runs after the first one, which allocates memory."""
    total_s, best_s, runs = _seconds_of(session, inputs, clock), math.inf, 0
    while not runs or (total_s < most_s and (runs < _REPEATED or total_s < least_s)):
        run_s = _seconds_of(session, inputs, clock)
        best_s, total_s, runs = min(best_s, run_s), total_s + run_s, runs + 1
    return best_s


def _seconds_of(session: Session, inputs: Inputs, clock: Callable[[], float]) -> float:
    started_s = clock()
    session.run(inputs)
    return clock() - started_s


def _side_by_side(
    session: Session, inputs: Inputs, instances: int, runs: int, clock: Callable[[], float]
) -> float:
    """The least duration of as many runs at the same time as there are instances."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(runs):
                session.run(inputs)
        except Exception as error:  # noqa: BLE001 - raised by the caller
            failures.append(error)

    best_s, total_s, rounds = math.inf, 0.0, 0
    while not rounds or (total_s < _MOST_S and rounds < _REPEATED):
        threads = [
            threading.Thread(target=work, name=f"weir-measure-{number}", daemon=True)
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
