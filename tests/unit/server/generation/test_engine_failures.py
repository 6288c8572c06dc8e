"""The failure of a request harms no other, and every outcome is counted."""

import logging
from collections.abc import Iterator

import pytest

from tests.unit.server.generation import toys
from tests.unit.server.generation.callers import Caller
from tests.unit.server.generation.world import (
    POISON,
    World,
    failed_with,
    has_right_answer,
    wait_for,
)
from weir.server.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    OutOfMemory,
    ResponseTooLarge,
)
from weir.server.generation.engine import DecoderStepFailed
from weir.server.generation.sampling_parameters import SearchParameters


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


def too_large(_token: int, _log_probability: float, /) -> None:
    raise ResponseTooLarge("planned")


def test_request_that_cannot_be_encoded_harms_no_other(world: World) -> None:
    world.submit(limit=1)
    world.wait_at("encode")
    callers = [world.submit([4], [5]), world.submit([POISON]), world.submit([6])]

    world.end()

    assert failed_with(callers[1], ValueError)
    assert has_right_answer(callers[0]) and has_right_answer(callers[2])
    assert world.rows_of("encode") == [1, 4, 2, 1, 1]
    assert world.stats.finished == {"limit": 4, "failed": 1}


def test_tokens_of_sources_are_counted_with_their_padding(world: World) -> None:
    world.submit([4], limit=1)
    world.wait_at("encode")
    world.submit([4, 5, 6, 7], [5])
    world.submit([6, 7])

    world.end()

    # One row of 1; then rows of 4, 1 and 2, padded to 4 each.
    assert world.rows_of("encode") == [1, 3]
    assert world.stats.model.tokens == 1 + 4 + 1 + 2
    assert world.stats.model.padded_tokens == 1 + 3 * 4


def test_tokens_of_sources_that_were_encoded_singly_are_counted_once(world: World) -> None:
    world.submit([4], limit=1)
    world.wait_at("encode")
    world.submit([4, 5, 6])
    world.submit([POISON, 8])

    world.end()

    assert world.rows_of("encode") == [1, 2, 1, 1]
    assert world.stats.model.tokens == world.stats.model.padded_tokens == 1 + 3


def test_failed_step_fails_the_running_requests_and_no_other(world: World) -> None:
    here = [world.submit([5], [6]), world.submit([7], search=SearchParameters(width=2))]
    world.wait_at("encode")
    world.toy.errors["decode"] = [OutOfMemory("planned")]
    world.open()
    wait_for(lambda: any(caller.outcomes for caller in here))
    after = world.submit([8])

    world.end()

    assert failed_with(here[0], OutOfMemory)
    assert has_right_answer(after)
    assert world.stats.finished["failed"] >= 2


@pytest.mark.parametrize(
    ("others", "error"),
    [(0, InvalidRequest), (1, DecoderStepFailed)],
    ids=["alone", "beside another"],
)
def test_invalid_values_of_a_step_are_reported_only_to_a_request_alone(
    world: World, others: int, error: type[Exception]
) -> None:
    callers = [world.submit([4], limit=99)]
    world.wait_at("encode")
    callers += [world.submit([4], limit=99) for _ in range(others)]
    world.run("encode", *(["decode", "encode"] * others))
    world.step_until(1 + others)
    world.toy.errors["decode"] = [InvalidRequest("planned")]

    world.end()

    assert all(failed_with(caller, error) for caller in callers)


def test_answer_that_cannot_be_sent_harms_no_other(world: World) -> None:
    world.submit(limit=1)
    world.wait_at("encode")
    bad = world.submit([4], answer_error=ResponseTooLarge("planned"))
    good = world.submit([5, 5])

    world.end()

    assert failed_with(bad, ResponseTooLarge)
    assert has_right_answer(good)
    assert world.stats.model.success.count == 2


def test_token_that_cannot_be_sent_harms_no_other_request(world: World) -> None:
    world.submit(limit=1)
    world.wait_at("encode")
    bad, good = world.caller([4], [5], limit=9), world.submit([6, 6])
    bad.inputs[1].on_token = too_large
    world.engine.submit(bad)

    world.end()

    assert failed_with(bad, ResponseTooLarge)
    assert has_right_answer(good)
    assert world.rows_of("decode") == [1, 3, 1, 1]
    assert world.stats.finished == {"limit": 2, "failed": 2}


def test_rows_of_one_request_end_and_fail_in_the_same_step(world: World) -> None:
    caller = world.caller([4], [5], [6], limit=1)
    for row in caller.inputs[1:]:
        row.on_token = too_large
    world.engine.submit(caller)

    world.end()

    assert failed_with(caller, ResponseTooLarge)
    assert world.stats.finished == {"limit": 1, "failed": 2}


def test_failure_that_cannot_be_sent_harms_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """In every place: expired in the queue, late before an encoding, cancelled, or failed."""
    world.submit(limit=1)
    world.wait_at("encode")
    lost = {"fail_error": OSError("planned")}
    expired = world.submit([4], deadline_s=1.0, **lost)
    cut = world.submit([4], deadline_s=2.0, **lost)
    cancelled, poisoned = world.submit([4], **lost), world.submit([POISON], **lost)
    also_late, good = world.submit([4], deadline_s=1.0), world.submit([5])
    with caplog.at_level(logging.CRITICAL):
        world.clock.advance(1.0)
        world.engine.expire(world.clock.now)
        world.engine.cancel(cancelled)
        world.clock.advance(1.0)
        world.end()

    assert failed_with(cancelled, Cancelled) and failed_with(poisoned, ValueError)
    assert all(failed_with(caller, DeadlineExceeded) for caller in (expired, cut, also_late))
    assert has_right_answer(good)


def test_finished_rows_are_counted_by_reason() -> None:
    world = World()
    world.toy.ends = True
    ends = world.submit([5], limit=50)
    world.end()
    (row,) = ends.inputs

    assert row.hypotheses[0].is_complete
    assert world.stats.finished == {"end": 1}
    assert world.stats.tokens == len(row.hypotheses[0].tokens)
    assert world.stats.steps == len(row.hypotheses[0].tokens) + 1 == len(world.rows_of("decode"))


def test_time_to_first_token_and_inter_token_latency_are_observed(world: World) -> None:
    world.clock.advance(1.0)
    caller = world.submit(limit=4)
    for kind in ("encode", "decode", "decode", "decode", "decode"):
        world.wait_at(kind)
        world.clock.advance(2.0)
        world.run(kind)
    wait_for(lambda: bool(caller.outcomes))

    assert world.stats.first_token.total == 4.0
    assert world.stats.token.total == pytest.approx(2.0)
    assert sum(world.stats.token.counts) == sum(world.stats.first_token.counts) == 1
    assert world.stats.model.success.seconds == 10.0


def test_active_rows_include_those_of_beams(world: World) -> None:
    caller: Caller = world.submit([5], search=SearchParameters(width=3), limit=2)
    world.run("encode", "decode")
    world.wait_at("decode")

    assert world.stats.active_rows == 3
    world.run("decode")
    wait_for(lambda: bool(caller.outcomes))
    wait_for(lambda: world.stats.active_rows == 0)
    assert toys.plain(caller.inputs[0].hypotheses)


def test_bug_on_the_thread_of_the_encoder_fails_its_requests_and_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stays = world.submit(limit=99)
    world.run("encode")
    world.wait_at("decode")
    lost = [world.submit([4], [5], limit=99), world.submit([6], limit=99)]
    world.run("decode")
    world.wait_at("encode")
    with monkeypatch.context() as patch:
        patch.setattr(world.stats, "encoded", broken)
        world.run("encode")
        wait_for(lambda: "encoding lost" in caplog.text)
    world.step_until(1)
    after = world.submit([7])

    world.end()

    assert all(failed_with(caller, RuntimeError) for caller in lost)
    assert has_right_answer(stays) and has_right_answer(after)


def test_bug_while_encoded_rows_join_fails_every_request_of_the_turn(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stays = world.submit(limit=99)
    world.run("encode")
    world.wait_at("decode")
    lost = [world.submit([POISON], limit=99), world.submit([5], limit=99)]
    world.run("decode", "encode", "encode")
    world.wait_at("encode")
    monkeypatch.setattr(world.engine._batch, "add", broken)
    world.run("encode")
    world.wait_for_encoder()
    world.run("decode")
    wait_for(lambda: "decoder batch lost" in caplog.text)
    monkeypatch.undo()
    after = world.submit([7])

    world.end()

    assert failed_with(lost[0], ValueError) and failed_with(lost[1], RuntimeError)
    assert failed_with(stays, RuntimeError) and has_right_answer(after)


def broken(*_: object) -> None:
    raise RuntimeError("planned")
