"""The rules of beam search, against the paper's formula and by hand."""

import math
from dataclasses import dataclass

import pytest

from weir.bundle.hypothesis_ranking import candidates, is_finished, normalised_score, ranked


@dataclass(frozen=True)
class Scored:
    is_complete: bool
    score: float


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
def test_score_is_that_of_the_paper(steps: int, power: float) -> None:
    """Wu et al. (2016), equation 14: lp(Y) = (5 + |Y|)^a / (5 + 1)^a."""
    penalty = math.pow(5 + steps, power) / math.pow(5 + 1, power)

    assert normalised_score(-3.5, steps, power) == pytest.approx(-3.5 / penalty)


def test_complete_hypotheses_rank_first_then_the_higher_score() -> None:
    cut, poor, good = Scored(False, -1.0), Scored(True, -5.0), Scored(True, -2.0)

    assert ranked([cut, poor, good]) == [good, poor, cut]


def test_equals_keep_their_order() -> None:
    first, second = Scored(True, -1.0), Scored(True, -1.0)

    assert ranked([first, second])[0] is first


@pytest.mark.parametrize(("width", "tokens", "count"), [(4, 100, 8), (1, 2, 2), (5, 1, 5)])
def test_as_many_candidates_as_may_be_needed(width: int, tokens: int, count: int) -> None:
    assert candidates(width, tokens) == count


@pytest.mark.parametrize(
    ("kept", "steps", "is_over"),
    [(0, 8, False), (3, 8, False), (4, 8, True), (5, 1, True), (0, 9, True)],
)
def test_search_is_over_with_a_full_beam_or_at_its_limit(
    kept: int,
    steps: int,
    is_over: bool,  # noqa: FBT001
) -> None:
    assert is_finished(kept=kept, width=4, steps=steps, limit=9) is is_over
