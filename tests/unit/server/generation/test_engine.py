"""The engine's queue and thread: which requests wait, run, and are refused."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.server.conftest import HANG_S
from tests.unit.server.generation.world import World, failed_with, has_right_answer, wait_for
from weir.server.errors import Cancelled, DeadlineExceeded, Draining, Overloaded
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.scheduling.request import Load


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


def test_request_is_answered_once_all_its_rows_are_done(world: World) -> None:
    caller = world.submit([5, 6], [4], [7, 7, 7], limit=3)

    world.run("encode", "decode", "decode")
    world.wait_at("decode")
    assert not caller.outcomes
    world.end()

    assert has_right_answer(caller)


def test_later_request_joins_the_running_batch(world: World) -> None:
    first = world.submit(limit=99)
    world.run("encode", "decode")
    world.wait_at("decode")
    second = world.submit([8], limit=2)

    world.run("decode", "encode")
    world.step_until(2)
    world.run("decode", "decode")
    wait_for(lambda: bool(second.outcomes))

    assert not first.outcomes
    world.end()
    assert has_right_answer(first) and has_right_answer(second)


def test_steps_go_on_while_other_requests_are_encoded(world: World) -> None:
    world.submit(limit=99)
    world.run("encode", "decode")
    world.wait_at("decode")

    world.submit([8], limit=2)
    world.run("decode")
    world.wait_at("encode")
    world.run("decode", "decode", "decode")

    assert world.rows_of("encode") == [1]
    assert set(world.rows_of("decode")) == {1}


def test_one_run_of_the_encoder_is_under_way_at_a_time(world: World) -> None:
    world.submit(limit=99)
    world.run("encode", "decode")
    world.wait_at("decode")
    world.submit([8])
    world.run("decode")
    world.wait_at("encode")

    world.submit([9])
    world.run("decode", "decode")

    assert world.engine.load() == Load(1, 1, 2)


def test_full_queue_refuses_at_once_and_with_the_limit() -> None:
    world = World(max_queue_rows=4)
    world.submit()
    world.wait_at("encode")
    world.submit([5], [6], [7])

    with pytest.raises(Overloaded, match="'toy': 3 rows wait, the limit is 4"):
        world.submit([5], [6])
    world.submit([5])

    assert world.engine.load() == Load(2, 4, 1)
    world.end()
    assert all(has_right_answer(caller) for caller in world.callers)


def test_request_larger_than_the_queue_waits_alone() -> None:
    """It would never fit, however often it is retried."""
    world = World(max_queue_rows=2)
    world.submit()
    world.wait_at("encode")

    large = world.submit(*[[5]] * 4)

    with pytest.raises(Overloaded):
        world.submit()
    world.end()
    assert has_right_answer(large)


def test_closed_engine_refuses_new_requests_and_answers_the_others() -> None:
    world = World()
    here = world.submit(limit=5)
    world.wait_at("encode")
    waits = world.submit([4])

    world.engine.close()

    with pytest.raises(Draining, match="model 'toy' is being unloaded"):
        world.engine.submit(world.caller())
    assert not world.engine.join(0.0)
    world.open()
    assert world.engine.join(HANG_S)
    assert has_right_answer(here) and has_right_answer(waits)
    assert world.stats.active_rows == 0


def test_closed_engine_ends_when_the_last_request_is_cancelled() -> None:
    world = World()
    caller = world.submit(limit=9)
    world.run("encode")
    world.wait_at("decode")
    world.engine.close()

    world.engine.cancel(caller)

    world.run("decode")
    assert world.engine.join(HANG_S)
    assert world.rows_of("decode") == [1]


plans = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("advance"), st.integers(1, 3)),
        st.tuples(st.just("run"), st.integers(1, 4)),
        st.tuples(st.just("fail"), st.sampled_from(["encode", "decode"])),
        st.tuples(st.just("close")),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(plans)
def test_every_request_has_exactly_one_outcome(plan: list[tuple[Any, ...]]) -> None:
    world = World()

    for kind, *arguments in plan:
        play(world, kind, *arguments)
    world.end()

    assert all(
        has_right_answer(caller)
        or any(failed_with(caller, error) for error in (Cancelled, DeadlineExceeded, ValueError))
        for caller in world.callers
    )
    assert world.stats.active_rows == 0


def play(world: World, kind: str, *arguments: Any) -> None:
    match kind:
        case "submit":
            rows, width, patience = arguments
            sources = [[4 + number] * (number + 1) for number in range(rows)]
            deadline_s = world.clock.now + patience
            with suppress(Overloaded, Draining):
                world.submit(*sources, search=SearchParameters(width=width), deadline_s=deadline_s)
        case "cancel" if world.callers:
            world.engine.cancel(world.callers[arguments[0] % len(world.callers)])
        case "advance":
            world.clock.advance(arguments[0])
            world.engine.expire(world.clock.now)
        case "run":
            for _ in range(arguments[0]):
                world.run_any()
        case "fail":
            world.toy.errors.setdefault(arguments[0], []).append(ValueError("planned"))
        case "close":
            world.engine.close()
