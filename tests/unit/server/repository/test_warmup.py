from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.server.conftest import Clock
from weir.bundle.golden import Golden
from weir.server.repository.warmup import warm_up
from weir.server.runtime.collate import LengthInput, Padding
from weir.server.runtime.signature import Signature, TensorSpec
from weir.server.scheduling.batching import BatchPolicy

Array = NDArray[Any]

INPUTS = [
    TensorSpec("tokens", "INT64", ("batch", "time")),
    TensorSpec("lengths", "INT64", ("batch",)),
    TensorSpec("letters", "INT64", ("batch", "time", "letters")),
]
TIME = Padding(
    maximum=60,
    inputs={"tokens": (1,), "letters": (1,)},
    values={"tokens": 0, "letters": 0},
    outputs={},
    length_input=LengthInput("lengths"),
)
LETTERS = Padding(
    maximum=24, inputs={"letters": (2,)}, values={"letters": 0}, outputs={}, length_input=None
)
GOLDEN = Golden(
    inputs={
        "tokens": np.tile([[3, 1, 4], [5, 9, 2]], 11),
        "lengths": np.array([33, 2]),
        "letters": np.ones((2, 33, 17), np.int64),
    },
    outputs={},
)


class Recorder:
    """A session that notes what it runs; a run takes the time the test says, for each entry."""

    inputs = INPUTS
    has_loop = False

    def __init__(self, clock: Clock, entry_s: float = 0.0) -> None:
        self.ran: list[dict[str, Array]] = []
        self.measured: list[tuple[int, float]] = []
        self._clock = clock
        self._entry_s = entry_s

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.ran.append(dict(inputs))
        self._clock.advance(self._entry_s * inputs["tokens"].size)
        return {}

    def shapes(self) -> list[tuple[int, ...]]:
        return [inputs["tokens"].shape for inputs in self.ran]


def warmed(
    clock: Clock, *, entry_s: float = 0.0, golden: Golden = GOLDEN, **limits: Any
) -> Recorder:
    session: Any = Recorder(clock, entry_s)
    warm_up(
        session,
        Signature(INPUTS, [], batch_axis="batch", max_rows=4),
        golden,
        name="tagger",
        is_plain=True,
        policy=BatchPolicy(4, **limits),
        measured=lambda work, seconds: session.measured.append((work, seconds)),
        paddings=[TIME, LETTERS],
        clock=clock,
    )
    recorder: Recorder = session
    return recorder


def test_lengths_are_doubled_for_one_row_and_for_a_full_batch(clock: Clock) -> None:
    session = warmed(clock)

    assert session.shapes() == [(rows, length) for length in (8, 16, 32, 60) for rows in (1, 4)]


def test_rows_longer_than_those_recorded_are_not_prepared_for(clock: Clock) -> None:
    short = Golden(
        {name: array[:, :9] if array.ndim > 1 else array for name, array in GOLDEN.inputs.items()},
        {},
    )

    assert max(warmed(clock, golden=short).shapes()) == (4, 16)


def test_rows_are_full_of_recorded_values(clock: Clock) -> None:
    ran = warmed(clock).ran[1]

    assert ran["tokens"].tolist() == [[3, 1, 4, 3, 1, 4, 3, 1], [5, 9, 2, 5, 9, 2, 5, 9]] * 2
    assert ran["lengths"].tolist() == [8, 8, 8, 8]
    assert ran["letters"].shape == (4, 8, 18)


def test_batches_have_no_more_tokens_than_the_scheduler_gives_them(clock: Clock) -> None:
    session = warmed(clock, max_tokens=70)

    assert [rows for rows, _ in session.shapes()] == [1, 4, 1, 4, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("entry_s", "longest"), [(0.0, 60), (0.004, 32), (0.02, 8), (9.0, 8)], ids=str
)
def test_a_slow_model_is_warmed_up_as_far_as_two_seconds_go(
    entry_s: float, longest: int, clock: Clock
) -> None:
    session = warmed(clock, entry_s=entry_s)

    assert max(length for _, length in session.shapes()) == longest


def test_the_time_of_each_run_is_measured_with_its_tokens(clock: Clock) -> None:
    session = warmed(clock, entry_s=0.004)

    assert [tokens for tokens, _ in session.measured] == [8, 32, 16, 64, 32, 128]
    assert [seconds for _, seconds in session.measured] == pytest.approx(
        [tokens * 0.004 for tokens, _ in session.measured]
    )
    assert len(session.measured) == len(session.ran)


class Shapes:
    """A session that notes how many rows it runs, and keeps none of them."""

    has_loop = False

    def __init__(self, inputs: list[TensorSpec]) -> None:
        self.inputs = inputs
        self.rows: list[int] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.rows.append(len(inputs["tokens"]))
        return {}


def rows_warmed(inputs: list[TensorSpec], golden: Golden | None, *paddings: Padding) -> list[int]:
    """For a contract that allows a million rows."""
    session: Any = Shapes(inputs)
    warm_up(
        session,
        Signature(inputs, [], batch_axis="batch", max_rows=1_000_000),
        golden,
        name="wide",
        is_plain=True,
        policy=BatchPolicy(1_000_000),
        measured=lambda _work, _seconds: None,
        paddings=paddings,
        clock=lambda: 10.0 * len(session.rows),
    )
    rows: list[int] = session.rows
    return rows


def test_batches_stop_where_their_inputs_would_fill_the_memory() -> None:
    assert rows_warmed([TensorSpec("tokens", "INT64", ("batch", 17 << 20))], None) == [1]


def test_nothing_is_run_where_one_row_would_fill_the_memory() -> None:
    inputs = [TensorSpec("tokens", "INT64", ("batch", 1 << 50))]
    recorded = Golden({"tokens": np.broadcast_to(np.int64(1), (1, 1 << 50))}, {})

    assert rows_warmed(inputs, None) == []
    assert rows_warmed(inputs, recorded) == []


def test_full_batch_of_rows_with_lengths_stops_there_too() -> None:
    letters = np.broadcast_to(np.int64(1), (2, 33, 1 << 18))
    golden = Golden({**GOLDEN.inputs, "letters": letters}, {})

    assert rows_warmed(INPUTS, golden, TIME) == [1, 3]
