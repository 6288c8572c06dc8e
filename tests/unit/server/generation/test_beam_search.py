"""Beam search against training's, over networks and over tables of numbers."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.server.generation import oracle
from weir.server.errors import InvalidRequest
from weir.server.generation.beam_search import BeamSearch
from weir.server.generation.sampling import Continuation, DecoderStep, Hypothesis, SearchContext

PAD, BEGIN, END = 0, 2, 3
FRAME = SearchContext(END, 4, 0.0)


def step(*log_probabilities: object, attention: object = None) -> DecoderStep:
    table = np.array(log_probabilities, np.float64)
    table[:, [PAD, BEGIN]] = -np.inf
    seen = None if attention is None else np.array(attention, np.float64)
    return DecoderStep(table, (), (), seen)


def run(beam: BeamSearch, tables: Sequence[object]) -> list[Hypothesis]:
    """The hypotheses, with the same table (V,) for every hypothesis of a step."""
    at = range(beam.slots)
    for table in tables:
        if beam.advance(step(*[table] * beam.slots), at) is None:
            return beam.hypotheses
    raise AssertionError("it does not end")


@oracle.every_network
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_answers_are_those_of_training(form: dict[str, object], width: int) -> None:
    case = oracle.Case(form)

    answers = case.answers(lambda frame: BeamSearch(frame, width, width))

    oracle.assert_same(answers, case.beam(width, width))


@pytest.mark.parametrize("length_power", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_limits_and_powers_are_those_of_training(limit: int, length_power: float) -> None:
    case = oracle.Case({}, limit=limit, length_power=length_power)

    answers = case.answers(lambda frame: BeamSearch(frame, 4, 2))

    oracle.assert_same(answers, case.beam(4, 2))


def test_beam_wider_than_the_vocabulary_finds_every_hypothesis() -> None:
    """One word besides the end makes five hypotheses of up to four steps."""
    beam = BeamSearch(FRAME, 5, 5)

    answers = run(beam, [[0, -1, 0, -2]] * 4)

    assert [each.tokens for each in answers] == [(), (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)]
    assert [each.log_probability for each in answers] == [-2, -3, -4, -5, -4]
    assert [each.is_complete for each in answers] == [True, True, True, True, False]


def test_among_equals_the_first_hypothesis_and_token_are_continued() -> None:
    beam = BeamSearch(FRAME, 3, 3)

    moves = [beam.advance(step(*[[0, -1, 0, -9, -1, -1]] * 3), range(3)) for _ in range(2)]

    assert moves == [Continuation([1, 4, 5], [0, 0, 0]), Continuation([1, 4, 5], [0, 0, 0])]


def test_states_follow_their_hypotheses_through_any_slots() -> None:
    """Slots are passed in; parents are positions in the beam."""
    beam = BeamSearch(FRAME, 2, 2)
    nothing, likely = [-50.0] * 6, [-50, -50, -50, -50, -1, -2]

    first = beam.advance(step(nothing, nothing, likely, nothing), [2, 0])
    second = beam.advance(
        step([-50, -3, -50, -50, -50, -50], nothing, [-50, -9, -50, -50, -9, -50], nothing), [2, 0]
    )

    assert first == Continuation([4, 5], [0, 0])
    assert second == Continuation([1, 1], [1, 0])


def test_attention_is_that_of_the_hypothesis_and_of_its_own_source() -> None:
    beam = BeamSearch(SearchContext(END, 3, 0.0, source_tokens=2), 2, 2)
    rows = [[-9, -9, -9, -9, -1, -2], [-9, -1, -9, -9, -9, -9], [-9, -9, -9, -1, -9, -9]]

    beam.advance(step(rows[0], rows[0], attention=[[1, 1, 7], [2, 2, 7]]), [0, 1])
    beam.advance(step(rows[2], rows[1], attention=[[3, 3, 7], [4, 4, 7]]), [0, 1])
    beam.advance(step(rows[2], rows[2], attention=[[5, 5, 7], [6, 6, 7]]), [0, 1])

    found = {
        each.tokens: None if each.attention is None else each.attention[:, 0].tolist()
        for each in beam.hypotheses
    }
    assert found == {(4,): [1, 3], (5, 1): [1, 4, 5]}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("good_steps", [0, 1])
def test_row_without_probabilities_is_refused(bad: float, good_steps: int) -> None:
    beam = BeamSearch(FRAME, 3, 2)

    with pytest.raises(InvalidRequest, match="no probabilities"):
        run(beam, [[-3, -1, -2, -99, -1, -2]] * good_steps + [[bad] * 6] * 4)


def test_hypotheses_complete_before_probabilities_end_are_kept() -> None:
    answers = run(BeamSearch(FRAME, 3, 2), [[0, -1, 0, -2, -3], [np.nan] * 5])

    assert [each.tokens for each in answers] == [()]


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(4, 7),
    st.randoms(use_true_random=False),
)
def test_every_beam_ends_with_hypotheses(
    width: int, limit: int, words: int, random: object
) -> None:
    generator = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    beam = BeamSearch(SearchContext(END, limit, 0.6), width, width)

    for _ in range(limit):
        table = generator.choice([-np.inf, -4.0, -2.0, -1.0], size=(width, words))
        table[:, 1] = -3.0
        if beam.advance(step(*table), range(width)) is None:
            break

    assert 1 <= len(beam.hypotheses) <= width
    tokens = [token for answer in beam.hypotheses for token in answer.tokens]
    assert not {PAD, BEGIN, END} & set(tokens)
    assert len({each.tokens for each in beam.hypotheses}) == len(beam.hypotheses)
    assert all(np.isfinite(each.log_probability) for each in beam.hypotheses)
