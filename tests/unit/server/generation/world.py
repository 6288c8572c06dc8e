"""An engine whose graphs wait for the test before each run."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from tests.unit.server.conftest import HANG_S, Clock
from tests.unit.server.generation import toys
from tests.unit.server.generation.callers import Caller
from weir.server.generation.engine import Engine
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Load
from weir.server.telemetry.model_stats import GenerationStats, ModelStats

Array = NDArray[Any]

POISON = 1
"""A source token with which no batch can be encoded."""


class Gated(toys.Toy):
    """A toy whose runs wait for the test."""

    def __init__(self) -> None:
        super().__init__(ends=False)
        self.changed = threading.Condition()
        # The kinds of the runs that wait, with their rows; one of each kind at a time.
        self.at: dict[str, int] = {}
        self.is_open = False

    def encode(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if POISON in inputs["tokens"]:
            self._begin("encode", len(inputs["tokens"]))
            raise ValueError("poison")
        return super().encode(inputs)

    def _begin(self, kind: str, rows: int) -> None:
        with self.changed:
            self.at[kind] = rows
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.is_open or kind not in self.at, HANG_S)
            self.at.pop(kind, None)
            self.changed.notify_all()
        super()._begin(kind, rows)


class World:
    """An engine, its requests, and a clock that stands still."""

    def __init__(self, *, capacity: int = 4, max_queue_rows: int = 8) -> None:
        self.clock = Clock(0.0)
        self.toy = Gated()
        self.callers: list[Caller] = []
        self.stats = GenerationStats(ModelStats("toy", "1"))
        self.deadlines = Deadlines(self.clock)
        self.engine = Engine(
            "toy",
            self.toy.generation(capacity),
            policy=BatchPolicy(capacity),
            max_queue_rows=max_queue_rows,
            deadlines=self.deadlines,
            stats=self.stats,
            clock=self.clock,
        )
        self.engine.start()

    def caller(self, *sources: Sequence[int], **what: Any) -> Caller:
        """A request that is not submitted yet; by default of one row."""
        search, limit = what.pop("search", SearchParameters()), what.pop("limit", 3)
        rows = [
            toys.row(tokens, search, number=number, limit=limit)
            for number, tokens in enumerate(sources or [[5, 6]])
        ]
        for row in rows:
            row.arrived_s = self.clock.now
        return Caller(rows, arrived_s=self.clock.now, queued_s=self.clock.now, **what)

    def submit(self, *sources: Sequence[int], **what: Any) -> Caller:
        caller = self.caller(*sources, **what)
        self.engine.submit(caller)
        self.callers.append(caller)
        return caller

    def wait_at(self, kind: str) -> int:
        """Return once a run of this kind waits for the test; its rows."""
        with self.toy.changed:
            reached = self.toy.changed.wait_for(lambda: kind in self.toy.at, HANG_S)
            assert reached, f"expected {kind}, it is at {self.toy.at}"
            return self.toy.at[kind]

    def run(self, *kinds: str) -> None:
        """Let these runs happen, one after the other."""
        for kind in kinds:
            self.wait_at(kind)
            with self.toy.changed:
                del self.toy.at[kind]
                self.toy.changed.notify_all()

    def wait_for_encoder(self) -> None:
        """Return once rows that are encoded apart are ready to join at the end of a step."""
        wait_for(lambda: not self.engine._is_encoding)

    def step_until(self, rows: int) -> None:
        """Let steps happen until one of so many rows waits, after those that are encoded apart."""
        self.wait_for_encoder()
        while self.wait_at("decode") != rows:
            self.run("decode")

    def run_any(self) -> None:
        """Let the engine's next runs happen, if any request waits for one."""
        wait_for(lambda: bool(self.toy.at) or all(caller.outcomes for caller in self.callers))
        with self.toy.changed:
            self.toy.at.clear()
            self.toy.changed.notify_all()

    def open(self) -> None:
        """Let every run happen from now on."""
        with self.toy.changed:
            self.toy.is_open = True
            self.toy.changed.notify_all()

    def end(self) -> None:
        """Let every request and then the engine end."""
        self.open()
        self.engine.close()
        assert self.engine.join(HANG_S), "the engine does not end"
        assert self.engine.load() == Load(0, 0, 0)
        assert all(len(caller.outcomes) == 1 for caller in self.callers)

    def rows_of(self, kind: str) -> list[int]:
        return [rows for each, rows in self.toy.calls if each == kind]


def wait_for(happened: Callable[[], bool]) -> None:
    """Poll until a condition holds: the last action of a thread notifies no test."""
    end_s = time.monotonic() + HANG_S
    while not happened():
        assert time.monotonic() < end_s, "what the test waits for does not happen"
        time.sleep(0.001)


def has_right_answer(caller: Caller) -> bool:
    return caller.outcomes == ["answered"] and all(
        toys.plain(row.hypotheses) == toys.plain(toys.alone(row, ends=False))
        for row in caller.inputs
    )


def failed_with(caller: Caller, error: type[Exception]) -> bool:
    (outcome,) = caller.outcomes
    return isinstance(outcome, error)
