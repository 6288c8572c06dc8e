"""Greedy search against training's, and samples against their probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.server.generation import oracle
from weir.server.errors import InvalidRequest
from weir.server.generation.sampling import (
    GREEDY,
    DecoderStep,
    Sampler,
    SearchContext,
    sample_token,
)
from weir.server.generation.sampling_parameters import SamplingParameters

LOG_PROBABILITIES = np.log(np.array([0.05, 0.4, 0.15, 0.3, 0.1]))


def step(*log_probabilities: object) -> DecoderStep:
    table = np.array(log_probabilities, np.float32)
    tokens = table.argmax(axis=1)
    values = table[np.arange(len(table)), tokens]
    return DecoderStep(table, tokens.tolist(), values.tolist(), None)


@oracle.every_network
@pytest.mark.parametrize("length_power", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("limit", [1, 2, 9])
def test_greedy_answers_are_those_of_training(
    form: dict[str, object], length_power: float, limit: int
) -> None:
    case = oracle.Case(form, limit=limit, length_power=length_power)

    answers = case.answers(Sampler)

    oracle.assert_same(answers, [[each] for each in case.greedy()])


def test_callback_gets_each_token_except_the_end() -> None:
    told: list[tuple[int, float]] = []
    path = Sampler(SearchContext(end=1, limit=5, length_power=0.0), lambda *each: told.append(each))

    moves = [
        path.advance(step(scores), [0]) for scores in ([-2, -3, -1], [-1, -3, -2], [-3, 0, -2])
    ]

    assert moves == [GREEDY, GREEDY, None]
    assert told == [(2, -1.0), (0, -1.0)]
    assert path.hypotheses[0].tokens == (2, 0)
    assert path.hypotheses[0].is_complete and path.hypotheses[0].log_probability == -2.0


def test_among_equals_the_first_is_chosen() -> None:
    path = Sampler(SearchContext(end=0, limit=1, length_power=0.0))

    assert path.advance(step([-2, -1, -1]), [0]) is None
    assert path.hypotheses[0].tokens == (1,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    "draw",
    [None, SamplingParameters(), SamplingParameters(top_k=2)],
    ids=["greedy", "draw", "top-k"],
)
def test_row_without_probabilities_is_refused(bad: float, draw: SamplingParameters | None) -> None:
    path = Sampler(SearchContext(9, 3, 0.6), sampling=draw, generator=np.random.default_rng(0))
    assert path.advance(step([-1, -2, -3, -4]), [0]) is not None

    with pytest.raises(InvalidRequest, match="no probabilities"):
        path.advance(step([bad] * 4), [0])


@pytest.mark.parametrize(
    ("draw", "probabilities"),
    [
        (SamplingParameters(), np.exp(LOG_PROBABILITIES)),
        (SamplingParameters(temperature=0.5), np.exp(LOG_PROBABILITIES) ** 2),
        (SamplingParameters(temperature=3.0), np.exp(LOG_PROBABILITIES) ** (1 / 3)),
        (SamplingParameters(top_k=2), np.array([0, 0.4, 0, 0.3, 0])),
        (SamplingParameters(temperature=0.5, top_k=3), np.array([0, 0.4, 0.15, 0.3, 0]) ** 2),
        (SamplingParameters(top_k=9), np.exp(LOG_PROBABILITIES)),
        (SamplingParameters(top_k=1), np.array([0, 1, 0, 0, 0])),
        (SamplingParameters(temperature=0.01), np.array([0, 1, 0, 0, 0])),
    ],
    ids=["plain", "cold", "hot", "top 2", "cold top 3", "top of all", "top 1", "frozen"],
)
def test_samples_follow_the_probabilities(
    draw: SamplingParameters, probabilities: np.ndarray
) -> None:
    count = 20_000
    generator = np.random.default_rng(1)

    drawn = [sample_token(LOG_PROBABILITIES, draw, generator) for _ in range(count)]

    wanted = probabilities / probabilities.sum()
    found = np.bincount(drawn, minlength=5) / count
    # Four standard deviations of a share; none for impossible tokens.
    assert (np.abs(found - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / count)).all()


def test_top_k_of_equals_are_the_first() -> None:
    generator = np.random.default_rng(0)

    drawn = {sample_token(np.zeros(6), SamplingParameters(top_k=2), generator) for _ in range(200)}

    assert drawn == {0, 1}


@given(st.lists(st.integers(-3, 0), min_size=2, max_size=12), st.integers(1, 11))
def test_top_k_are_those_that_a_stable_sort_puts_first(scores: list[int], top_k: int) -> None:
    table = np.array(scores, np.float64)
    wanted = set(np.argsort(-table, kind="stable")[:top_k].tolist())
    generator = np.random.default_rng(0)

    drawn = {sample_token(table, SamplingParameters(100.0, top_k), generator) for _ in range(300)}

    assert drawn == wanted


@pytest.mark.parametrize(
    ("drawn", "token"), [(0.0, 1), (0.5, 2), (1 - 2**-53, 2)], ids=["least", "border", "most"]
)
def test_ends_of_the_range_are_possible_tokens(drawn: float, token: int) -> None:
    class Fixed(np.random.Generator):
        def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
            return drawn

    table = np.log(np.array([1e-300, 1, 1, 1e-300])) - [np.inf, 0, 0, np.inf]

    assert sample_token(table, SamplingParameters(), Fixed(np.random.PCG64())) == token


@given(
    st.lists(st.floats(-30, 0), min_size=2, max_size=8),
    st.integers(0, 9),
    st.sampled_from([0.01, 0.5, 1.0, 100.0]),
    st.integers(0, 2**63 - 1),
)
def test_impossible_token_is_never_sampled(
    scores: list[float], top_k: int, temperature: float, seed: int
) -> None:
    table = np.array([-np.inf, *scores, -np.inf], np.float32)

    token = sample_token(table, SamplingParameters(temperature, top_k), np.random.default_rng(seed))

    assert 1 <= token <= len(scores)
