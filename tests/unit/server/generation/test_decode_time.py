"""How long rows are decoded, and how long a request waits, as estimated from what was measured."""

import pytest

from tests.unit.server.generation import toys
from weir.server.generation.decode_time import DecodeTime, Demand, SlotsAhead, StepCount
from weir.server.generation.sampling_parameters import SearchParameters


def measured(
    *, capacity: int = 4, steps: int = 10, turn_s: float = 0.1, token_s: float = 0.0
) -> DecodeTime:
    """Estimates of a model whose rows all have these steps."""
    time = DecodeTime(capacity)
    for _ in range(50):
        time.turned(capacity, turn_s)
        time.turned(1, turn_s)
        time.encoded(1, token_s)
        time.encoded(50, 50 * token_s)
        time.row_done(toys.row([4, 5], limit=99), steps, is_complete=True)
    return time


def demand(rows: int = 1, *, width: int = 1, length: int = 2, limit: int = 99) -> Demand:
    search = SearchParameters(width=width)
    return Demand.of([toys.row([4] * length, search, limit=limit) for _ in range(rows)])


def test_steps_follow_the_length_of_the_source() -> None:
    count = StepCount()
    for number in range(200):
        length = 1 + number % 7
        count = count.measured(length, 2 * length + 3)

    assert count.of(5) == pytest.approx(13, abs=0.2)
    assert count.of(20) == pytest.approx(43, abs=1)


def test_sources_of_one_length_say_nothing_of_others() -> None:
    count = StepCount()
    for _ in range(10):
        count = count.measured(5, 8)

    assert count.of(1) == count.of(50) == pytest.approx(8)


def test_longer_sources_are_not_expected_to_have_fewer_steps() -> None:
    count = StepCount()
    for number in range(50):
        length = 1 + number % 5
        count = count.measured(length, 20 - 2 * length)

    assert count.of(50) >= count.of(1) >= 1


def test_nothing_is_known_before_a_row_is_done() -> None:
    assert not DecodeTime(4).is_known
    assert measured().is_known


def test_request_with_free_slots_takes_its_steps() -> None:
    answer_s = measured().answer_s(demand(2), SlotsAhead(used=1))

    assert answer_s == pytest.approx(1.0, rel=0.05)


def test_steps_are_bounded_by_the_request() -> None:
    answer_s = measured().answer_s(demand(limit=3), SlotsAhead())

    assert answer_s == pytest.approx(0.3, rel=0.05)


def test_request_waits_for_as_many_slots_as_it_lacks() -> None:
    # 4 of 4 slots are used, 2 encoded rows and 2 waiting ones come first: 5 slots are lacking.
    answer_s = measured().answer_s(demand(), SlotsAhead(used=4, encoded=2, rows=2))

    assert answer_s == pytest.approx(5 / 4 * 1.0 + 1.0, rel=0.05)


def test_rows_of_beams_take_their_slots() -> None:
    # 8 slots are needed, 4 are there.
    assert measured().answer_s(demand(2, width=4), SlotsAhead()) == pytest.approx(2.0, rel=0.05)


def test_rest_of_a_request_waits_for_no_other() -> None:
    assert measured().rest_s(demand(), used=2) == pytest.approx(1.0, rel=0.05)


def test_encoder_delays_a_request_until_its_source_is_encoded() -> None:
    time = measured(token_s=0.1)

    assert time.answer_s(demand(), SlotsAhead(rows=4, tokens=48)) == pytest.approx(6.0, rel=0.1)


def test_row_that_was_cut_off_counts_only_if_it_was_long() -> None:
    time = measured(steps=10)

    for _ in range(100):
        time.row_done(toys.row([4, 5], limit=3), 3, is_complete=False)
    assert time.answer_s(demand(), SlotsAhead()) == pytest.approx(1.0, rel=0.05)

    for _ in range(100):
        time.row_done(toys.row([4, 5], limit=30), 30, is_complete=False)
    assert time.answer_s(demand(), SlotsAhead(used=4)) > 3.0


def test_free_slots_favour_a_request_that_may_be_short() -> None:
    time = measured()
    for number in range(200):
        time.row_done(toys.row([4, 5], limit=99), 5 + 10 * (number % 2), is_complete=True)

    assert time.answer_s(demand(), SlotsAhead()) < 0.5
    assert time.answer_s(demand(), SlotsAhead(used=4)) > 1.0


def test_typical_row_has_the_mean_length() -> None:
    time = measured()
    busy = SlotsAhead(4, 0, rows=4)

    assert time.typical_s(SlotsAhead()) == pytest.approx(time.answer_s(demand(), SlotsAhead()))
    assert time.typical_s(busy) == pytest.approx(time.answer_s(demand(), busy))
    assert DecodeTime(4).typical_s(busy) is None
