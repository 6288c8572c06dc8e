"""Rows that join and leave between steps get the same hypotheses as alone, and none starves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.server.generation import toys
from tests.unit.server.generation.callers import Caller
from tests.unit.server.generation.toys import (
    FakeDevice,
    OnDevice,
    Toy,
    alone,
    forced,
    plain,
    run_out,
)
from weir.server.errors import ResponseTooLarge
from weir.server.generation.beam_search import BeamSearch
from weir.server.generation.decoder_batch import DecoderBatch, Row
from weir.server.generation.sampling import Hypothesis, Sampler
from weir.server.generation.sampling_parameters import SamplingParameters, SearchParameters

Array = NDArray[Any]

CAPACITY = 6


@st.composite
def searches(draw: st.DrawFn) -> SearchParameters:
    power = draw(st.sampled_from([0.0, 0.6]))
    match draw(st.sampled_from(["greedy", "beam", "sample"])):
        case "beam":
            width = draw(st.integers(2, CAPACITY))
            return SearchParameters(
                width=width, n_best=draw(st.integers(1, width)), length_power=power
            )
        case "sample":
            how = SamplingParameters(
                draw(st.sampled_from([0.5, 1.0, 2.0])), draw(st.integers(0, 4)), 7
            )
            return SearchParameters(
                n_best=draw(st.integers(1, CAPACITY)), length_power=power, sampling=how
            )
    return SearchParameters(length_power=power)


@st.composite
def callers(draw: st.DrawFn) -> Caller:
    search = draw(searches())
    tokens = st.lists(st.integers(4, 8), min_size=1, max_size=20)
    sources = draw(st.lists(tokens, min_size=1, max_size=3))
    limit = draw(st.integers(1, 12))
    return Caller([toys.row(each, search, limit=limit) for each in sources])


events = st.lists(
    st.one_of(
        st.tuples(st.just("come"), callers()),
        st.tuples(st.just("encode"), st.integers(1, 3)),
        st.tuples(st.just("step")),
        st.tuples(st.just("drop"), st.integers(0, 9)),
    ),
    min_size=5,
    max_size=40,
)


@pytest.mark.parametrize("on_device", [False, True], ids=["arrays", "device"])
@given(plan=events)
def test_every_row_gets_the_hypotheses_that_it_gets_alone(
    plan: list[tuple[Any, ...]], *, on_device: bool
) -> None:
    generation = Toy().generation(CAPACITY, on_device=on_device)
    waiting: list[Caller] = []
    here: list[Caller] = []
    ended: list[Row] = []

    for kind, *arguments in [*plan, ("encode", 99)]:
        match kind:
            case "come":
                waiting += arguments
            case "encode" if waiting:
                batch = waiting[: arguments[0]]
                generation.add(
                    generation.encode([row for caller in batch for row in caller.inputs])
                )
                here += batch
                del waiting[: len(batch)]
            case "step" if generation.is_busy:
                ended += toys.step(generation).ended
            case "drop" if here:
                leaver = here.pop(arguments[0] % len(here))
                generation.drop(leaver.inputs)
    for step in run_out(generation):
        ended += step.ended

    assert generation.used_slots == 0
    assert len(set(ended)) == len(ended)
    stayed = [row for caller in here for row in caller.inputs]
    assert set(stayed) <= set(ended)
    for row in ended:
        assert plain(row.hypotheses) == plain(alone(row))
        assert 1 <= len(row.hypotheses) <= row.search.n_best
        for answer in row.hypotheses:
            total, attention = forced(row, answer)
            assert answer.log_probability == total
            np.testing.assert_array_equal(answer.attention, attention)


def test_equal_seeds_sample_equal_tokens_and_rows_and_samples_differ() -> None:
    def drawn(seed: int, number: int) -> list[tuple[int, ...]]:
        search = SearchParameters(
            n_best=3, length_power=0.0, sampling=SamplingParameters(2.0, 0, seed)
        )
        row = toys.row([5, 6], search, number=number)
        generation = Toy(ends=False).generation(3)
        generation.add(generation.encode([row]))
        run_out(generation)
        return [answer.tokens for answer in row.hypotheses]

    first, again, other_seed, other_row = drawn(1, 0), drawn(1, 0), drawn(2, 0), drawn(1, 1)

    assert first == again
    assert len({*first, *other_seed, *other_row}) == 9


def test_samples_are_independent_of_how_many_are_wanted() -> None:
    def drawn(best: int) -> set[tuple[int, ...]]:
        row = toys.row(
            [5, 6], SearchParameters(n_best=best, sampling=SamplingParameters(2.0, 0, 3))
        )
        return {answer.tokens for answer in alone(row)}

    assert drawn(1) < drawn(3) < drawn(6)


def test_wide_beam_is_not_starved_by_small_rows() -> None:
    """It joins once the rows before it have left, however many rows follow it."""
    generation = Toy(ends=False).generation(4)
    wide = toys.row([5], SearchParameters(width=4))
    generation.add(generation.encode([toys.row([4], limit=5) for _ in range(3)]))
    toys.step(generation)
    generation.add(generation.encode([wide]))

    joined = []
    for _ in range(8):
        generation.add(generation.encode([toys.row([6], limit=5)]))
        joined.append(wide in generation.join())
        generation.step()

    assert joined.index(True) == 4


def test_rows_join_in_their_order() -> None:
    generation = Toy(ends=False).generation(3)
    rows = [
        toys.row([4], SearchParameters(width=width) if width > 1 else None, limit=2)
        for width in (2, 2, 1, 3, 1)
    ]
    generation.add(generation.encode(rows))

    joined = []
    while generation.is_busy:
        joined.append(generation.join())
        generation.step()

    assert [each for each in joined if each] == [rows[:1], rows[1:3], rows[3:4], rows[4:]]


def test_freed_slots_are_taken_in_the_next_step() -> None:
    generation = Toy(ends=False).generation(2)
    leaver, newcomer = Caller([toys.row([5], SearchParameters(width=2))]), Caller([toys.row([6])])
    generation.add(generation.encode([*leaver.inputs, *newcomer.inputs]))
    assert generation.join() == leaver.inputs
    generation.step()

    generation.drop(leaver.inputs)

    assert generation.used_slots == 0
    assert generation.join() == newcomer.inputs


def test_time_axis_is_as_long_as_the_remaining_rows_need() -> None:
    toy, times = Toy(ends=False), []

    def decode(inputs: Mapping[str, Array]) -> dict[str, Array]:
        times.append(inputs["memory"].shape[1])
        return toy.decode(inputs)

    generation = DecoderBatch(
        toys.LAYOUT, encode=toy.encode, decode=decode, lengths="lengths", capacity=2
    )
    generation.add(generation.encode([toys.row([5] * 20, limit=2), toys.row([6] * 3, limit=4)]))
    run_out(generation)

    assert times == [24, 24, 8, 8]


def test_as_many_rows_may_be_ready_as_there_are_slots() -> None:
    generation = Toy(ends=False).generation(2)
    seen = [generation.wants_rows]
    generation.add(generation.encode([toys.row([5]), toys.row([5]), toys.row([5], limit=3)]))
    seen.append(generation.wants_rows)
    toys.step(generation)
    seen.append(generation.wants_rows)
    run_out(generation)
    seen.append(generation.wants_rows)

    assert seen == [True, False, True, True]


@pytest.mark.parametrize("on_device", [False, True], ids=["arrays", "device"])
def test_step_that_fails_changes_nothing(*, on_device: bool) -> None:
    toy = Toy()
    generation = toy.generation(3, on_device=on_device)
    rows = [toys.row([5, 6], SearchParameters(width=2)), toys.row([4, 4, 4])]
    generation.add(generation.encode(rows))
    toys.step(generation)
    toy.errors["decode"] = [ValueError("planned")]

    with pytest.raises(ValueError, match="planned"):
        toys.step(generation)
    run_out(generation)

    assert [plain(row.hypotheses) for row in rows] == [plain(alone(row)) for row in rows]


def device_batch(capacity: int) -> tuple[DecoderBatch, FakeDevice]:
    toy = Toy(ends=False)
    device = FakeDevice(toy.decode)
    batch = DecoderBatch(
        toys.LAYOUT,
        encode=toy.encode,
        decode=toy.decode,
        lengths="lengths",
        capacity=capacity,
        device=device,
    )
    return batch, device


def test_state_stays_on_the_device_until_rows_come_or_leave() -> None:
    batch, device = device_batch(4)
    batch.add(batch.encode([toys.row([5, 6], limit=8), toys.row([4], limit=8)]))
    for _ in range(3):
        toys.step(batch)
    steady = list(device.copies)
    batch.add(batch.encode([toys.row([7], limit=2)]))

    toys.step(batch)
    joined = device.copies[len(steady) :]
    toys.step(batch)

    assert steady == ["to device"] * 2  # the memory and the first state
    assert joined == ["to host", "to device", "to device"]
    # The third row has left, and its state was fetched with the others'.
    assert device.copies[len(steady) + len(joined) :] == ["to host"]


def test_device_that_lost_its_memory_fails_once_and_rows_can_be_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, _ = device_batch(4)
    rows = [toys.row([5, 6], limit=8), toys.row([4], limit=8)]
    batch.add(batch.encode(rows))
    toys.step(batch)

    def lost(_: OnDevice) -> Array:
        raise RuntimeError("planned")

    monkeypatch.setattr(OnDevice, "numpy", lost)
    with pytest.raises(RuntimeError, match="planned"):
        batch.drop(rows[:1])
    for row in rows:
        batch.drop([row])
    monkeypatch.undo()

    assert batch.used_slots == 0 and not batch.is_busy
    after = toys.row([4, 8])
    batch.add(batch.encode([after]))
    run_out(batch)
    assert plain(after.hypotheses) == plain(alone(after, ends=False))


def test_encoder_that_returns_too_few_rows_leaves_none_ready() -> None:
    toy = Toy()

    def encode(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array[:1] for name, array in toy.encode(inputs).items()}

    generation = DecoderBatch(
        toys.LAYOUT, encode=encode, decode=toy.decode, lengths="lengths", capacity=2
    )

    with pytest.raises(IndexError):
        generation.add(generation.encode([toys.row([4]), toys.row([5])]))

    assert not generation.is_busy


@pytest.mark.parametrize("width", [1, 2])
def test_row_that_fails_harms_no_other(width: int) -> None:
    """A token that cannot be sent, or a row without probabilities."""
    toy = Toy(ends=False)
    bad, good = toys.row([5], SearchParameters(width=width), limit=4), toys.row([6, 7], limit=4)

    def too_large(_token: int, _value: float, /) -> None:
        raise ResponseTooLarge("planned")

    def decode(inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = toy.decode(inputs)
        if len(inputs["previous"]) == 3:
            outputs["log_probabilities"][:2] = np.nan
        return outputs

    bad.on_token = too_large
    generation = DecoderBatch(
        toys.LAYOUT, encode=toy.encode, decode=decode, lengths="lengths", capacity=3
    )
    generation.add(generation.encode([bad, good]))

    stepped = toys.step(generation)

    assert list(stepped.failed) == [bad]
    assert generation.used_slots == 1
    run_out(generation)
    assert plain(good.hypotheses) == plain(alone(good, ends=False))


@pytest.mark.parametrize(
    ("search", "kinds"),
    [
        (SearchParameters(), [Sampler]),
        (SearchParameters(width=3, n_best=2), [BeamSearch]),
        (SearchParameters(n_best=3, sampling=SamplingParameters()), [Sampler] * 3),
    ],
    ids=["greedy", "beam", "samples"],
)
def test_row_takes_the_slots_of_its_search(search: SearchParameters, kinds: list[type]) -> None:
    searches = toys.row([4], search).start_searches(toys.END)

    assert [type(each) for each in searches] == kinds
    assert sum(each.slots for each in searches) == search.slots


def test_row_is_done_with_its_last_search_and_its_best_hypothesis_is_first() -> None:
    row = toys.row([4], SearchParameters(n_best=3, sampling=SamplingParameters()))
    row.start_searches(toys.END)
    cut = Hypothesis((), 0.0, -1, is_complete=False)
    poor, good = (Hypothesis((), 0.0, score, is_complete=True) for score in (-5, -2))

    ended = [row.search_done([answer]) for answer in (cut, poor, good)]

    assert ended == [False, False, True]
    assert row.hypotheses == [good, poor, cut]
