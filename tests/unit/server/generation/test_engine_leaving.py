"""Requests that leave an engine before they are answered: cancelled, or late."""

from collections.abc import Iterator

import pytest

from tests.unit.server.generation.world import (
    POISON,
    World,
    failed_with,
    has_right_answer,
    wait_for,
)
from weir.server.errors import Cancelled, DeadlineExceeded
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.scheduling.request import Load


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


def test_cancelled_request_frees_its_place_in_the_queue() -> None:
    world = World(max_queue_rows=2)
    world.submit()
    world.wait_at("encode")
    leaver = world.submit([5], [5])

    world.engine.cancel(leaver)

    assert failed_with(leaver, Cancelled)
    assert world.engine.load() == Load(0, 0, 1)
    world.submit([5], [5])
    world.end()
    assert sum(world.rows_of("encode")) == 3


def test_request_cancelled_during_its_encoding_takes_no_slot(world: World) -> None:
    leaves = world.submit([5], [6], limit=9)
    world.wait_at("encode")

    world.engine.cancel(leaves)

    assert failed_with(leaves, Cancelled)
    world.run("encode", "decode")
    wait_for(lambda: world.stats.finished["cancelled"] == 2)
    assert world.stats.active_rows == 0
    assert world.rows_of("decode") == [2]


def test_request_cancelled_before_its_encoding_fails_is_counted_as_cancelled(world: World) -> None:
    world.submit(limit=99)
    world.run("encode", "decode")
    world.wait_at("decode")
    leaves = world.submit([POISON], limit=99)
    world.run("decode")
    world.wait_at("encode")

    world.engine.cancel(leaves)

    assert failed_with(leaves, Cancelled)
    world.run("decode", "encode")
    world.open()
    wait_for(lambda: world.stats.finished["limit"] == 1)
    assert world.stats.finished == {"cancelled": 1, "limit": 1}


def test_request_cancelled_while_it_is_encoded_beside_steps_takes_no_slot(world: World) -> None:
    stays = world.submit(limit=99)
    world.run("encode", "decode")
    world.wait_at("decode")
    leaves = world.submit([4], [5], limit=99)
    world.run("decode")
    world.wait_at("encode")

    world.engine.cancel(leaves)

    assert failed_with(leaves, Cancelled)
    world.run("decode", "encode")
    world.open()
    wait_for(lambda: world.stats.finished["cancelled"] == 2)
    wait_for(lambda: bool(stays.outcomes))
    assert has_right_answer(stays)
    assert set(world.rows_of("decode")) == {1}


def test_request_cancelled_during_decoding_leaves_before_the_next_step(world: World) -> None:
    stays = world.submit(limit=99)
    world.wait_at("encode")
    leaves = world.submit([4], search=SearchParameters(width=2), limit=99)
    world.run("encode", "decode", "encode")
    world.step_until(3)

    world.engine.cancel(leaves)

    assert failed_with(leaves, Cancelled)
    world.run("decode")
    assert world.wait_at("decode") == 1
    world.open()
    wait_for(lambda: bool(stays.outcomes))
    assert has_right_answer(stays)
    assert world.stats.finished == {"cancelled": 1, "limit": 1}


def test_cancelling_twice_or_too_late_changes_nothing(world: World) -> None:
    answered = world.submit(limit=1)
    world.run("encode", "decode")
    wait_for(lambda: bool(answered.outcomes))
    cancelled = world.submit()
    world.wait_at("encode")

    for caller in (answered, cancelled, cancelled):
        world.engine.cancel(caller)

    assert has_right_answer(answered)
    assert failed_with(cancelled, Cancelled)


def test_cancellation_at_the_deadline_is_reported_as_the_deadline(world: World) -> None:
    """A transport reports both as a closed call."""
    caller = world.submit(deadline_s=5.0)
    world.run("encode")
    world.wait_at("decode")
    world.clock.advance(5.0)

    world.engine.cancel(caller)

    assert failed_with(caller, DeadlineExceeded)
    world.run("decode")
    wait_for(lambda: world.stats.finished == {"deadline": 1})


def test_request_that_is_late_in_the_queue_is_never_run(world: World) -> None:
    world.submit()
    world.wait_at("encode")
    late, later = world.submit([4, 4], deadline_s=5.0), world.submit([5], deadline_s=9.0)
    world.clock.advance(6.0)

    assert world.engine.expire(world.clock.now) == 9.0

    assert failed_with(late, DeadlineExceeded) and not later.outcomes
    world.end()
    assert sum(world.rows_of("encode")) == 2


def test_late_request_is_not_encoded(world: World) -> None:
    world.submit(limit=1)
    world.wait_at("encode")
    late = world.submit([4], deadline_s=5.0)
    world.clock.advance(5.0)

    world.end()

    assert failed_with(late, DeadlineExceeded)
    assert sum(world.rows_of("encode")) == 1


def test_request_that_is_late_between_steps_frees_its_slots(world: World) -> None:
    late = world.submit([5, 5], [6], deadline_s=5.0, limit=99)
    world.wait_at("encode")
    stays = world.submit([7], limit=99)
    world.run("encode", "decode", "encode")
    world.step_until(3)
    world.clock.advance(5.0)

    assert world.engine.expire(world.clock.now) > 5.0

    assert failed_with(late, DeadlineExceeded)
    world.run("decode")
    assert world.wait_at("decode") == 1
    world.open()
    wait_for(lambda: bool(stays.outcomes))
    assert has_right_answer(stays)
    assert world.stats.finished["deadline"] == 2


def test_waiting_request_takes_freed_slots(world: World) -> None:
    leaves = world.submit([5], search=SearchParameters(width=4), limit=9)
    world.run("encode", "decode")
    world.wait_at("decode")
    comes = world.submit([6], limit=1)

    world.engine.cancel(leaves)

    world.run("decode", "encode", "decode")
    wait_for(lambda: bool(comes.outcomes))
    assert world.rows_of("decode") == [4, 4, 1]
    assert has_right_answer(comes)
