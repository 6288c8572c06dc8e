"""The memory watermark: what it refuses, and when it stops to."""

import errno
import threading
import time
from dataclasses import dataclass, field

import pytest

from tests.unit.server.conftest import HANG_S, Clock
from weir.server.errors import Overloaded
from weir.server.runtime.memory import MemoryLimit
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.memory_watermark import MemoryWatermark, default_share

INFER, LIVE = "/inference/ModelInfer", "/inference/ServerLive"


@dataclass
class World:
    """A process of 1000 bytes whose use the test sets."""

    clock: Clock
    used: int = 0
    is_busy: bool = False
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    shed: list[Exception] = field(default_factory=list)
    budget: ByteBudget = field(default_factory=lambda: ByteBudget("the server"))

    def __post_init__(self) -> None:
        self.watermark = MemoryWatermark(
            [MemoryLimit("cgroup", 1000, lambda: self.used)],
            0.9,
            methods=(INFER,),
            budget=self.budget,
            is_busy=self.answer_busy,
            shed=self.receiving,
            clock=self.clock,
        )

    def answer_busy(self) -> bool:
        is_busy = self.is_busy
        self.asked.release()
        return is_busy

    def receiving(self, error: Exception, methods: tuple[str, ...]) -> int:
        assert methods == (INFER,)
        self.shed.append(error)
        return 2

    def use(self, used: int) -> float:
        self.used = used
        return self.watermark.sample()


@dataclass
class Call:
    method: str
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    peer: str = "ipv4:127.0.0.1:1"
    caller: str = ""


@pytest.fixture
def world(clock: Clock) -> World:
    world = World(clock)
    world.budget.take(1)  # a request is in flight
    return world


def is_refused(world: World, method: str = INFER) -> bool:
    try:
        world.watermark.check(Call(method))
    except Overloaded:
        return True
    return False


def test_calls_are_refused_above_the_watermark_until_well_below_it(world: World) -> None:
    seen = []
    for used in (899, 900, 851, 849, 899):  # at rest the server uses nothing
        world.use(used)
        seen.append(is_refused(world))

    assert seen == [False, True, True, False, False]
    # Two calls, and two whose messages were on their way as the memory grew.
    assert world.watermark.state().refused == {"watermark": 4, "bytes_in_flight": 0}


def test_refusal_says_the_share_and_the_limit(world: World) -> None:
    world.use(932)

    with pytest.raises(Overloaded, match=r"uses 93% of its memory limit \(cgroup\), .* is 90%"):
        world.watermark.check(Call(INFER))


def test_calls_that_compute_nothing_pass(world: World) -> None:
    world.use(999)

    assert not is_refused(world, LIVE)


def test_without_a_request_in_flight_one_call_passes_at_a_time(world: World, clock: Clock) -> None:
    world.use(930)
    world.budget.give_back(1)

    seen = [is_refused(world), is_refused(world)]
    clock.advance(0.2)
    seen.append(is_refused(world))

    assert seen == [False, True, False]


def test_memory_that_is_not_given_back_counts_as_memory_at_rest(world: World, clock: Clock) -> None:
    world.use(950)
    clock.advance(1.0)
    world.use(950)  # a request is in flight, which may free it
    assert is_refused(world)
    world.budget.give_back(1)

    clock.advance(1.0)
    world.use(960)
    is_growing = world.watermark.is_high
    clock.advance(1.0)
    world.use(960)

    assert is_growing
    assert not world.watermark.is_high
    world.budget.take(1)
    world.use(979)
    assert not is_refused(world)
    world.use(981)
    assert is_refused(world)


def test_messages_on_their_way_are_refused_while_the_memory_grows(world: World) -> None:
    for used in (899, 910, 910, 905):
        world.use(used)

    assert len(world.shed) == 1 and isinstance(world.shed[0], Overloaded)
    assert world.watermark.state().refused["watermark"] == 2


def test_half_of_what_is_free_at_rest_may_be_used(world: World) -> None:
    world.used = 960
    world.watermark.models_changed()

    seen = []
    for used in (960, 979, 981):
        world.use(used)
        seen.append(is_refused(world))

    assert seen == [False, False, True]


def test_memory_while_a_call_is_open_is_not_that_at_rest(world: World) -> None:
    world.used = 960
    world.is_busy = True
    world.watermark.models_changed()

    world.use(960)

    assert is_refused(world)


def test_message_of_the_call_that_ends_the_rest_is_not_memory_at_rest() -> None:
    world = World(Clock())
    world.budget.take(1)
    world.watermark.start()
    assert all(world.asked.acquire(timeout=HANG_S) for _ in range(2))  # it is asleep

    world.is_busy = True
    world.used = 960
    end_s = time.monotonic() + HANG_S
    while not world.watermark.is_high and time.monotonic() < end_s:
        is_refused(world, LIVE)  # it wakes the thread
        time.sleep(0.01)

    assert is_refused(world)
    world.watermark.stop()


@pytest.mark.parametrize(
    ("limit_bytes", "share"), [(2**40, 0.9), (2**30, 0.75), (2**28, 0.6)], ids=str
)
def test_room_for_messages_is_left_above_the_watermark(limit_bytes: int, share: float) -> None:
    assert default_share(limit_bytes, 2**25) == share


def test_samples_come_more_often_the_less_is_left() -> None:
    gib = 2**30
    pauses = []
    for used in (0, 30 * gib, 32 * gib - 1):
        limit = MemoryLimit("machine", 32 * gib, lambda used=used: used)  # type: ignore[misc]
        watermark = MemoryWatermark(
            [limit],
            0.9,
            methods=(),
            budget=ByteBudget("the server"),
            is_busy=bool,
            shed=lambda _error, _methods: 0,
        )
        pauses.append(watermark.sample())

    assert pauses[0] == 1.0 and 0.1 < pauses[1] < 0.2 and pauses[2] == 0.01


def test_memory_that_cannot_be_read_after_a_rest_ends_the_watch_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_gone, is_asleep = threading.Event(), threading.Event()

    def used() -> int:
        if is_gone.is_set():
            raise OSError(errno.ENODEV, "the group is gone")
        return 0

    def is_busy() -> bool:
        is_asleep.set()
        return False

    watermark = MemoryWatermark(
        [MemoryLimit("cgroup", 1000, used)],
        0.9,
        methods=(INFER,),
        budget=ByteBudget("the server"),
        is_busy=is_busy,
        shed=lambda _error, _methods: 0,
    )
    watermark.start()
    assert is_asleep.wait(5.0)
    is_gone.set()

    watermark.stop()  # it wakes the thread

    assert "memory is no longer watched reason=the group is gone" in caplog.text
