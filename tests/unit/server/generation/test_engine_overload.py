"""Requests that cannot be done by their deadline: refused at arrival, or left out later."""

from collections.abc import Iterator

import pytest

from tests.unit.server.generation.world import World, failed_with, has_right_answer, wait_for
from weir.server.errors import Overloaded
from weir.server.generation.sampling_parameters import SearchParameters

STEPS, STEP_S = 3, 1.0
"""Of every row of these tests, until `decoded` is told otherwise."""


@pytest.fixture
def world() -> Iterator[World]:
    """One slot, and a row that was decoded: three steps of a second each."""
    world = World(capacity=1)
    world.submit(limit=STEPS)
    world.run("encode")
    decoded(world, STEPS)
    wait_for(lambda: bool(world.callers[0].outcomes))
    yield world
    world.end()


def decoded(world: World, steps: int) -> None:
    """Let steps happen, each of which takes a second."""
    for _ in range(steps):
        world.wait_at("decode")
        world.clock.now += STEP_S
        world.run("decode")


def busy(world: World) -> None:
    """Occupy the slot with a row of many steps."""
    world.submit(limit=99)
    world.run("encode")
    world.wait_at("decode")


def test_request_that_cannot_be_done_in_time_is_refused_at_arrival(world: World) -> None:
    busy(world)

    # It waits for the slot as long as a row has it, then it has three steps itself.
    with pytest.raises(Overloaded, match="an answer is expected in 6 s, the request has 5 s") as no:
        world.submit(deadline_s=world.clock.now + 5)
    assert no.value.retry_after_s == pytest.approx(2.0)

    world.submit(deadline_s=world.clock.now + 10)
    world.submit(deadline_s=world.clock.now + 50)


def test_request_is_measured_by_its_own_limit_of_tokens(world: World) -> None:
    busy(world)

    world.submit(limit=1, deadline_s=world.clock.now + 5.5)
    with pytest.raises(Overloaded):
        world.submit(limit=3, deadline_s=world.clock.now + 5.5)


def test_idle_engine_takes_any_request(world: World) -> None:
    """The estimate may be wrong, and only rows that are decoded correct it."""
    caller = world.submit(deadline_s=world.clock.now + 0.5)

    world.open()
    wait_for(lambda: bool(caller.outcomes))

    assert has_right_answer(caller)


def test_request_without_measured_rows_is_not_refused() -> None:
    world = World(capacity=1)
    busy(world)

    caller = world.submit(deadline_s=world.clock.now + 0.001)

    world.end()
    assert has_right_answer(caller)


def test_encoded_request_that_cannot_be_done_any_more_gets_no_slot(world: World) -> None:
    first = world.submit(limit=STEPS)
    world.run("encode")
    world.wait_at("decode")
    late = world.submit(deadline_s=world.clock.now + 8)
    decoded(world, 1)
    world.run("encode")
    world.wait_for_encoder()
    waits = world.submit(limit=STEPS)

    # The step takes so long that two seconds are left for the second request's three steps.
    world.wait_at("decode")
    world.clock.now += 5.0 - STEP_S
    decoded(world, 2)
    wait_for(lambda: bool(late.outcomes))

    assert failed_with(late, Overloaded)
    world.end()
    assert has_right_answer(first) and has_right_answer(waits)


def test_waiting_request_that_cannot_be_done_any_more_is_not_encoded(world: World) -> None:
    first = world.submit(limit=STEPS)
    world.run("encode")
    world.wait_at("decode")
    ready = world.submit(limit=STEPS)
    decoded(world, 1)
    world.run("encode")
    world.wait_for_encoder()
    late = world.submit([4, 5], deadline_s=world.clock.now + 14)
    encoded = len(world.rows_of("encode"))

    world.wait_at("decode")
    world.clock.now += 9.0
    decoded(world, 2)
    wait_for(lambda: bool(late.outcomes))

    assert failed_with(late, Overloaded)
    assert len(world.rows_of("encode")) == encoded
    world.end()
    assert has_right_answer(first) and has_right_answer(ready)


def test_last_request_runs_though_it_seems_late(world: World) -> None:
    first = world.submit(limit=STEPS)
    world.run("encode")
    world.wait_at("decode")
    last = world.submit(deadline_s=world.clock.now + 8)
    decoded(world, 1)
    world.run("encode")
    world.wait_for_encoder()

    world.wait_at("decode")
    world.clock.now += 5.0 - STEP_S
    decoded(world, 2)
    wait_for(lambda: bool(first.outcomes))

    world.end()
    assert has_right_answer(last)


def test_ready_rows_of_beams_count_their_slots() -> None:
    """Otherwise urgent requests would wait behind many beams that are encoded already."""
    world = World(capacity=2, max_queue_rows=99)
    for _ in range(6):
        world.submit([4], [5], search=SearchParameters(width=2))
    world.run("encode", "decode")
    world.wait_at("decode")

    # One beam is decoded, the other row of its request is ready: it will take both slots.
    assert world.rows_of("encode") == [2]
    world.end()
