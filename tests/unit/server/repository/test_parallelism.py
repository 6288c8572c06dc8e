import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import onnx_models
from weir.server.config import ModelSettings
from weir.server.errors import OutOfMemory
from weir.server.repository import parallelism
from weir.server.repository.parallelism import Parallelism, RowTimes, SessionSlot, choose, fixed
from weir.server.runtime.session import Session

ONE = RowTimes(0.008, 0.016)


def settings(**own: Any) -> ModelSettings:
    return ModelSettings(**{"threads": "auto", "instances": "auto", **own})


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param(settings(threads=3), (3, 1), id="threads"),
        pytest.param(settings(instances=4), (1, 4), id="instances"),
        pytest.param(settings(threads=2, instances=4), (2, 4), id="both"),
        pytest.param(settings(threads=1), (1, 1), id="one thread"),
    ],
)
@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_number_of_the_operator_is_not_measured(
    own: ModelSettings, expected: tuple[int, int], provider: str
) -> None:
    known = fixed(own, provider=provider, cores=8)

    assert known is not None
    assert (known.threads, known.instances) == expected
    assert known.reason in {
        "setting threads",
        "setting instances",
        "settings threads and instances",
    }


@pytest.mark.parametrize(
    ("provider", "cores", "expected"),
    [
        pytest.param("cpu", 1, Parallelism(1, 1, "one usable core"), id="one core"),
        pytest.param("cuda", 8, Parallelism(1, 1, "provider cuda"), id="CUDA"),
        pytest.param("cpu", 2, None, id="two cores"),
    ],
)
def test_one_core_and_cuda_need_no_measurement(
    provider: str, cores: int, expected: Parallelism | None
) -> None:
    assert fixed(settings(), provider=provider, cores=cores) == expected


@pytest.mark.parametrize(
    ("by_threads", "concurrent_s", "expected"),
    [
        pytest.param({2: RowTimes(0.004, 0.009)}, 0.004, (2, 1), id="threads help rows and one"),
        pytest.param({2: RowTimes(0.004, 0.016)}, 0.004, (1, 2), id="one row gains nothing"),
        pytest.param({2: RowTimes(0.005, 0.009)}, 0.004, (1, 2), id="instances clearly better"),
        pytest.param({2: RowTimes(0.007, 0.009)}, 0.007, (1, 1), id="gains too small"),
        pytest.param({2: RowTimes(0.009, 0.017)}, 0.009, (1, 1), id="losses"),
        pytest.param({2: RowTimes(0.004, 0.009)}, None, (2, 1), id="no instances"),
        pytest.param({}, 0.004, (1, 2), id="no other session"),
        pytest.param({}, None, (1, 1), id="nothing else"),
    ],
)
def test_other_choice_than_one_thread_needs_a_clear_gain(
    by_threads: Mapping[int, RowTimes], concurrent_s: float | None, expected: tuple[int, int]
) -> None:
    chosen = choose(ONE, by_threads, 2, concurrent_s, rows=16)

    assert (chosen.threads, chosen.instances) == expected


@pytest.mark.parametrize(
    ("by_threads", "concurrent_s", "verdict"),
    [
        pytest.param(
            {2: RowTimes(0.004, 0.009)},
            0.008,
            "2 threads are 2.00 times as fast as one",
            id="threads",
        ),
        pytest.param(
            {2: RowTimes(0.005, 0.009)},
            0.004,
            "2 instances are 1.25 times as fast as 2 threads",
            id="instances",
        ),
        pytest.param(
            {2: RowTimes(0.009, 0.017)},
            0.009,
            "none is 1.25 times as fast for a batch and for a row alone",
            id="none",
        ),
    ],
)
def test_reason_ends_with_what_decided(
    by_threads: Mapping[int, RowTimes], concurrent_s: float, verdict: str
) -> None:
    assert choose(ONE, by_threads, 2, concurrent_s, rows=16).reason.endswith(f": {verdict}")


@pytest.mark.parametrize(
    ("of_all", "expected"),
    [pytest.param(0.0039, 4, id="as fast"), pytest.param(0.0030, 8, id="clearly faster")],
)
def test_all_cores_have_to_be_clearly_faster_than_half(of_all: float, expected: int) -> None:
    by_threads = {4: RowTimes(0.004, 0.008), 8: RowTimes(of_all, 0.008)}

    assert choose(ONE, by_threads, 8, None, rows=16).threads == expected


def test_threads_to_try_are_few() -> None:
    assert [parallelism.thread_counts(cores) for cores in (2, 3, 4, 64)] == [
        [2], [3], [2, 4], [32, 64],
    ]  # fmt: skip


@dataclass
class Machine:
    """Clocks, and sessions that take time on them without running anything.

    Attributes:
        speed_up: of a run, by threads.
        overlap: of runs at the same time; 1: they take turns.
        stolen: how much longer a run takes, as others use the cores.
        open: the sessions that exist.
    """

    row_s: float
    speed_up: Mapping[int, float]
    overlap: float = 1.0
    stolen: float = 1.0
    now_s: float = 0.0
    cpu_s: float = 0.0
    open: int = 0
    most_open: int = 0
    opened: list[int] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def slot(self, creation_s: float = 0.5) -> SessionSlot:
        return SessionSlot(self.session, self.session(1), creation_s)

    def session(self, threads: int) -> Session:
        self.opened.append(threads)
        return cast("Session", FakeSession(self, threads))

    def measure(self, slot: SessionSlot, **given: Any) -> Parallelism:
        return parallelism.measure(
            slot,
            **{
                "inputs_of": lambda rows: {"x": np.zeros((rows, 4))},
                "cores": 2,
                "max_rows": 32,
                "clock": lambda: self.now_s,
                "cpu_clock": lambda: self.cpu_s,
                **given,
            },
        )


class FakeSession:
    def __init__(self, machine: Machine, threads: int) -> None:
        self.machine, self.threads = machine, threads
        machine.open += 1
        machine.most_open = max(machine.most_open, machine.open)

    def __del__(self) -> None:
        self.machine.open -= 1

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        machine = self.machine
        run_s = len(inputs["x"]) * machine.row_s / machine.speed_up[self.threads]
        is_beside = threading.current_thread().name.startswith("weir-measure")
        with machine.lock:
            machine.cpu_s += run_s
            machine.now_s += run_s * machine.stolen / (machine.overlap if is_beside else 1.0)
        return {}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        pytest.param(Machine(0.008, {1: 1, 2: 1.8}, overlap=1.9), (2, 1), id="AlexNet"),
        pytest.param(Machine(0.008, {1: 1, 2: 0.8}, overlap=1.9), (1, 2), id="recurrent"),
        pytest.param(Machine(0.008, {1: 1, 2: 1.1}, overlap=1.1), (1, 1), id="no gain"),
        pytest.param(Machine(0.00003, {1: 1, 2: 1.8}, overlap=1.9), (1, 1), id="LeNet"),
    ],
)
def test_choice_follows_the_measurement(machine: Machine, expected: tuple[int, int]) -> None:
    slot = machine.slot()

    chosen = machine.measure(slot)

    assert (chosen.threads, chosen.instances) == expected
    assert cast("FakeSession", slot.session).threads == chosen.threads
    assert machine.most_open == 1, "the weights are in memory once"


def test_short_rows_need_no_other_session() -> None:
    machine = Machine(0.00003, {1: 1, 2: 1.8}, overlap=1.9)

    chosen = machine.measure(machine.slot())

    assert machine.opened == [1]
    assert chosen.reason == "a row takes 30 us, below 200 us"


def test_other_work_on_the_machine_is_not_taken_for_a_gain() -> None:
    machine = Machine(0.008, {1: 1, 2: 1.2}, overlap=1.2, stolen=2.0)

    chosen = machine.measure(machine.slot())

    assert (chosen.threads, chosen.instances) == (1, 1)


def test_session_that_is_slow_to_create_is_not_made_again() -> None:
    machine = Machine(0.008, {1: 1, 2: 1.8}, overlap=1.9)

    chosen = machine.measure(machine.slot(creation_s=60.0))

    assert machine.opened == [1]
    assert (chosen.threads, chosen.instances) == (1, 2)


def test_graphs_of_an_encoder_decoder_are_not_measured() -> None:
    chosen = fixed(settings(), provider="cpu", cores=2, is_of_pair=True)
    given = fixed(settings(threads=2), provider="cpu", cores=2, is_of_pair=True)

    assert chosen is not None and (chosen.threads, chosen.instances) == (1, 1)
    assert given is not None and given.threads == 2


def test_time_of_a_measurement_is_bounded() -> None:
    machine = Machine(0.9, {1: 1, 2: 1.8}, overlap=1.9)

    machine.measure(machine.slot())

    assert machine.now_s < 15
    slow = Machine(30.0, {1: 1, 2: 1.8})
    assert slow.measure(slow.slot()).reason == "a row takes 30.0 s, above 1 s"
    assert slow.now_s == pytest.approx(30.0)


def test_unknown_inputs_are_not_measured() -> None:
    machine = Machine(0.008, {1: 1, 2: 1.8})

    chosen = machine.measure(machine.slot(), inputs_of=lambda _: None)

    assert chosen == Parallelism(1, 1, "no inputs to measure with")
    assert machine.now_s == 0


def test_failed_measurement_leaves_one_thread() -> None:
    machine = Machine(0.008, {1: 1, 2: 1.8}, overlap=1.9)

    def session(threads: int) -> Session:
        if threads > 1:
            raise OutOfMemory("the graph needs more memory than there is")
        return machine.session(threads)

    slot = SessionSlot(session, machine.session(1), 0.5)
    chosen = machine.measure(slot)

    assert (chosen.threads, chosen.instances) == (1, 1)
    assert chosen.reason.startswith("the measurement failed: ")
    assert cast("FakeSession", slot.session).threads == 1


def test_network_has_the_same_digest_with_other_weights() -> None:
    first, second = (onnx_models.affine(slope=slope) for slope in (2.0, 3.0))

    assert parallelism.network_of(first) == parallelism.network_of(second)
    assert parallelism.network_of(first) != parallelism.network_of(onnx_models.echo())
    assert parallelism.network_of(first) != parallelism.network_of(onnx_models.affine(width=8))
    assert parallelism.network_of(b"no graph") != parallelism.network_of(first)


def test_real_session_is_measured() -> None:
    def session(threads: int) -> Session:
        return Session(onnx_models.affine(), provider="cpu", threads=threads)

    slot = SessionSlot(session, session(1), 0.01)
    chosen = parallelism.measure(
        slot, lambda rows: {"x": np.zeros((rows, 4), np.float32)}, cores=2, max_rows=8
    )

    assert (chosen.threads, chosen.instances) == (1, 1)
    assert chosen.reason.endswith(" us")
    assert math.isfinite(slot.creation_s)
