"""Rules of beam search, shared by training and the server. Pure: numbers in, numbers out.

- At each step the beam's K hypotheses are continued in every way. Of the K likeliest continuations,
  those that end are kept. The K likeliest that do not end are continued.
- A search is finished when K hypotheses are kept, or at its limit of steps.
- Complete hypotheses rank before those that the limit cut off, then by score.
- Scores are normalised by length, see `normalised_score`.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar

DEFAULT_LENGTH_POWER = 0.6
"""The exponent a: Wu et al. (2016, section 7) found 0.6 to 0.7 best."""


class Scored(Protocol):
    """A hypothesis, as far as its rank depends on it."""

    @property
    def is_complete(self) -> bool:
        """Whether it ends with the end token; False if the limit cut it off."""

    @property
    def score(self) -> float:
        """Its normalised score."""


S = TypeVar("S", bound=Scored)


def normalised_score(log_probability: float, steps: int, length_power: float) -> float:
    """Score of a hypothesis: its log-probability over ((5 + n) / 6)^a (Wu et al., 2016, eq. 14).

    The end token is one of the n steps. The power 0 leaves the sum as it is.
    """
    penalty: float = ((5 + steps) / 6) ** length_power
    return log_probability / penalty


def candidates(width: int, tokens: int) -> int:
    """How many continuations of K hypotheses by V tokens are ranked.

    Each hypothesis ends in one way only, so 2 K continuations include K that do not end.
    """
    return min(2 * width, width * tokens)


def is_finished(*, kept: int, width: int, steps: int, limit: int) -> bool:
    """Whether a search is over after so many steps."""
    return kept >= width or steps >= limit


def ranked(hypotheses: Iterable[S]) -> list[S]:
    """Hypotheses, best first; equals keep their order."""
    return sorted(hypotheses, key=lambda each: (each.is_complete, each.score), reverse=True)
