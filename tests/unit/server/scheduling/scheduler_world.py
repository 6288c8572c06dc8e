"""A scheduler whose runs wait for the test; what its callers get is recorded."""

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.unit.server.conftest import Clock
from weir.server.runtime.collate import LengthInput, Padding, Tokens
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import InferRequest
from weir.server.scheduling.scheduler import Scheduler
from weir.server.telemetry.model_stats import BatchTimes, CountedRequest
from weir.server.telemetry.request_record import RequestRecord
from weir.server.transport.wakeups import Wakeups

Array = NDArray[Any]

# Only ever reached by a test that fails.
HANG_S = 20.0
LATER = 1e9


@dataclass(eq=False)
class Call(InferRequest):
    """A fake request: its rows hold its number, so that an answer shows whose it is."""

    world: "World"
    number: int
    rows: int = 1
    key: Hashable = ()
    length: int = 0
    arrived_s: float = 0.0
    queued_s: float = 0.0
    deadline_s: float = LATER
    answer_error: Exception | None = None
    fail_error: Exception | None = None
    is_answered: bool = False
    record: RequestRecord | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    outcomes: list[Mapping[str, Array] | Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = max(1, self.length)
        self.work = self.rows * size
        self.inputs: Mapping[str, Array] = {
            "x": np.full((self.rows, size), self.number),
            "lengths": np.full(self.rows, size),
        }

    def answer(self, outputs: Mapping[str, Array]) -> None:
        if self.answer_error is not None:
            raise self.answer_error
        with self.world.changed:
            self.is_answered = True
            self.outcomes.append(outputs)
            self.world.changed.notify_all()

    def fail(self, error: Exception) -> None:
        with self.world.changed:
            self.outcomes.append(error)
            self.world.changed.notify_all()
        if self.fail_error is not None:
            raise self.fail_error

    @property
    def has_right_answer(self) -> bool:
        (outcome,) = self.outcomes
        return not isinstance(outcome, Exception) and outcome["y"].tolist() == (
            [[-self.number] * max(1, self.length)] * self.rows
        )

    def failed_with(self, error: type[Exception]) -> bool:
        (outcome,) = self.outcomes
        return isinstance(outcome, error)


@dataclass(eq=False)
class Run:
    """A batch that runs until the test lets it end."""

    numbers: list[int]
    error: Exception | None = None
    may_end: bool = False


# What fills a row up is no caller's number.
PADDING = Padding(
    maximum=50,
    inputs={"x": (1,)},
    values={"x": -7},
    outputs={"y": (1,)},
    length_input=LengthInput("lengths"),
)


class World:
    """A scheduler and its world: every step waits for the test, every wait for an event."""

    def __init__(
        self,
        *,
        instances: int = 1,
        max_queue_rows: int = 100,
        wakeups: Wakeups | None = None,
        **policy: float,
    ) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.clock = Clock(0.0)
        self.running: list[Run] = []
        self.batches: list[list[int]] = []
        self.observed: list[tuple[list[int], BatchTimes]] = []
        self.tokens: list[Tokens] = []
        self.calls: list[Call] = []
        self.instances = instances
        self.thread_names: set[str] = set()
        self.scheduler = Scheduler(
            "fake",
            self._run,
            policy=BatchPolicy(
                int(policy.get("max_rows", 8)),
                policy.get("max_queue_delay_s", 0.0),
                policy.get("regroup_share", 0.0),
                max_tokens=int(policy["max_tokens"]) if "max_tokens" in policy else None,
                step_rows=2.0,
            ),
            max_queue_rows=max_queue_rows,
            instances=instances,
            has_rows=True,
            paddings=[PADDING],
            deadlines=Deadlines(self.clock),
            observer=self._observe,
            wakeups=wakeups,
            clock=self.clock,
        )
        self.scheduler.start()

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        run = Run(list(dict.fromkeys(inputs["x"][:, 0].tolist())))
        with self.changed:
            self.thread_names.add(threading.current_thread().name)
            self.batches.append(run.numbers)
            self.running.append(run)
            self.changed.notify_all()
            self.wait_for(lambda: run.may_end)
            self.running.remove(run)
            self.changed.notify_all()
        if run.error is not None:
            raise run.error
        return {"y": -inputs["x"]}

    def _observe(self, *batch: Any) -> None:
        # Looked up at each batch: tests replace it.
        self.batch_ran(*batch)

    def batch_ran(
        self, requests: Sequence[CountedRequest], times: BatchTimes, tokens: Tokens
    ) -> None:
        with self.changed:
            numbers = [call.number for call in requests if isinstance(call, Call)]
            self.observed.append((numbers, times))
            self.tokens.append(tokens)
            self.changed.notify_all()

    def ran(self) -> set[int]:
        """The numbers of all calls that were in a run."""
        return {number for batch in self.batches for number in batch}

    def wait_for(self, happened: Callable[[], bool]) -> None:
        with self.changed:
            if not self.changed.wait_for(happened, HANG_S):
                raise AssertionError("what the test waits for does not happen")

    def call(self, **what: Any) -> Call:
        """A call that is not submitted yet."""
        now = self.clock.now
        return Call(self, len(self.calls) + 1, arrived_s=now, queued_s=now, **what)

    def submit(self, call: Call | None = None, **what: Any) -> Call:
        call = call or self.call(**what)
        self.scheduler.submit(call)
        self.calls.append(call)
        return call

    def submit_and_run(self, *, runs: int = 1, **what: Any) -> Call:
        """A call whose batch is running when this returns."""
        call = self.submit(**what)
        self.wait_for(lambda: len(self.running) == runs)
        return call

    def end_run(self, error: Exception | None = None, position: int = 0) -> Run:
        """Let a batch end, and wait until it did."""
        with self.changed:
            run = self.running[position]
            run.error = error
            run.may_end = True
            self.changed.notify_all()
            self.wait_for(lambda: run not in self.running)
        return run

    def end_every_run(self) -> None:
        """Let everything end well, what still waits too, and the scheduler with it."""
        self.scheduler.close()
        while any(not call.outcomes for call in self.calls):
            self.wait_for(lambda: bool(self.running) or all(call.outcomes for call in self.calls))
            if self.running:
                self.end_run()
        # Runs whose callers all left.
        while self.running:
            self.end_run()

    def settle(self) -> None:
        """Wait until every thread of the scheduler waits: for a request, or in a run."""

        def is_settled() -> bool:
            with self.changed:
                return is_settled_now()

        def is_settled_now() -> bool:
            load = self.scheduler.load()
            in_runs = {number for run in self.running for number in run.numbers}
            held = [call for call in self.calls if not call.outcomes and call.number in in_runs]
            open_calls = sum(not call.outcomes for call in self.calls)
            return (
                load.running_requests == len(held)
                and open_calls == load.waiting_requests + load.running_requests
                and (load.waiting_requests == 0 or len(self.running) == self.instances)
            )

        # The end of a batch on its thread has no event, so the state is polled.
        end_s = time.monotonic() + HANG_S
        while not is_settled():
            assert time.monotonic() < end_s, "what the test waits for does not happen"
            time.sleep(0.001)


def ending(world: World) -> Iterator[World]:
    yield world
    world.end_every_run()
    assert world.scheduler.join(HANG_S)
