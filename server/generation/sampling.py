"""How the tokens of one answer are chosen, step by step. Pure: arrays in, tokens out.

Rules, those of training's search:
- Padding and begin are never chosen. An answer ends with the end, or at its limit, where it is cut off.
- Sums of log-probabilities are kept in double precision; a score is such a sum divided by ((5 + n) / 6)^a for n
  steps, the end counted (Wu et al., 2016, equation 14).
- A draw depends on its seed and on the log-probabilities of its own row, never on who shares the batch.
- A row whose network gives it no probabilities, NaN for one, is refused: whatever was chosen would be no answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weir.server.errors import InvalidRequest

Array = NDArray[Any]

DEFAULT_LENGTH_POWER = 0.6


@dataclass(frozen=True, slots=True)
class Draw:
    """Tokens drawn by their probabilities.

    Attributes:
        temperature: that log-probabilities are divided by, above 0.
        top_k: so many likeliest tokens may be drawn; 0: all.
        seed: equal seeds draw equal tokens.
    """

    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Search:
    """What a request wants of each of its rows.

    Attributes:
        width: of the beam; 1: the likeliest token at every step.
        best: how many answers a row gets; of a beam at most its width, greedily 1.
        length_power: a of the scores.
        draw: instead of a beam.
        most_tokens: that are made; None: as many as the pair allows.
    """

    width: int = 1
    best: int = 1
    length_power: float = DEFAULT_LENGTH_POWER
    draw: Draw | None = None
    most_tokens: int | None = None

    @property
    def slots(self) -> int:
        """Rows of the decoder that one row of a request takes."""
        return self.best if self.draw else self.width


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        tokens: without the end.
        log_probability: of all its steps, the end among them.
        score: that, divided for its length.
        is_complete: it came to the end; False where a limit cut it off.
        attention: (steps, source tokens), that of the end too; None where it was not asked for.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    is_complete: bool
    attention: Array | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the decoder gave, for every slot.

    Attributes:
        log_probabilities: (slots, tokens), -inf for those never chosen.
        tokens: the likeliest of each slot.
        values: their log-probabilities.
        attention: (slots, time), or None.
    """

    log_probabilities: Array
    tokens: Sequence[int]
    values: Sequence[float]
    attention: Array | None


@dataclass(frozen=True, slots=True)
class Frame:
    """What all searches of a row have in common.

    Attributes:
        end: the token that ends an answer.
        limit: the most steps, from 1.
        length_power: a of the scores.
        source_tokens: of the row; None if attention is not wanted.
    """

    end: int
    limit: int
    length_power: float
    source_tokens: int | None = None

    def answer(self, tokens: Sequence[int], total: float, attention: Sequence[Array]) -> Answer:
        """The answer of the tokens chosen, the end among them if it came to that."""
        is_complete = tokens[-1] == self.end
        return Answer(
            tokens=tuple(tokens[:-1] if is_complete else tokens),
            log_probability=total,
            score=total / ((5 + len(tokens)) / 6) ** self.length_power,
            is_complete=is_complete,
            attention=np.stack(attention) if attention else None,
        )


@dataclass(frozen=True, slots=True)
class Move:
    """How a search goes on: in each of its slots with this token, after the state of that slot."""

    tokens: Sequence[int]
    parents: Sequence[int]


LIKELIEST = Move((), ())
"""In its only slot, with the step's likeliest token: as that slot goes on by itself."""


class Searching(Protocol):
    """A search under way; it keeps `slots` slots until it is done."""

    slots: int
    answers: list[Answer]

    def advance(self, step: Step, at: Sequence[int]) -> Move | None:
        """Take a step, in which its slots were `at`; None once it is done, with its `answers`, 1 or more.

        Raises:
            Exception: it cannot go on, and has none.
        """


class Told(Protocol):
    """Hears of each token as it is chosen."""

    def __call__(self, token: int, log_probability: float, /) -> None:
        """One more token."""


@dataclass(slots=True)
class Path:
    """One answer by itself: greedily, or drawn.

    Attributes:
        told: called with each token and its log-probability, the end's not.
        generator: draws; None: the likeliest token is taken.
    """

    frame: Frame
    told: Told | None = None
    draw: Draw | None = None
    generator: np.random.Generator | None = None
    slots: int = 1
    answers: list[Answer] = field(default_factory=list)
    _tokens: list[int] = field(default_factory=list)
    _total: float = 0.0
    _attention: list[Array] = field(default_factory=list)

    def advance(self, step: Step, at: Sequence[int]) -> Move | None:
        """See `Searching`."""
        slot, frame = at[0], self.frame
        token, value = step.tokens[slot], step.values[slot]
        if not math.isfinite(value):
            raise without_probabilities()
        if self.draw is not None and self.generator is not None:
            token = draw_token(step.log_probabilities[slot], self.draw, self.generator)
            value = float(step.log_probabilities[slot, token])
        self._tokens.append(token)
        self._total += value
        if frame.source_tokens is not None and step.attention is not None:
            self._attention.append(step.attention[slot, : frame.source_tokens].copy())
        if self.told is not None and token != frame.end:
            self.told(token, value)
        if token != frame.end and len(self._tokens) < frame.limit:
            return LIKELIEST if token == step.tokens[slot] else Move((token,), (0,))
        self.answers = [frame.answer(self._tokens, self._total, self._attention)]
        return None


def without_probabilities() -> InvalidRequest:
    """Why a row cannot go on; as with any run, its values were not for this model."""
    return InvalidRequest("the model gives no probabilities for these values")


def draw_token(log_probabilities: Array, draw: Draw, generator: np.random.Generator) -> int:
    """One token by the probabilities of a row (tokens,), after temperature and top-k."""
    scaled = log_probabilities.astype(np.float64) / draw.temperature
    if 0 < draw.top_k < len(scaled):
        scaled[~_likeliest(scaled, draw.top_k)] = -np.inf
    sums = np.cumsum(np.exp(scaled - scaled.max()))
    place = int(np.searchsorted(sums, generator.random() * sums[-1], side="right"))
    return min(place, len(sums) - 1)


def _likeliest(scores: Array, count: int) -> Array:
    """Where the highest of some scores (tokens,) are; of equals, the first in the vocabulary.

    Not sorted: of 10,000 tokens, 32 rows would hold up each step of all others for as long as the decoder does.
    """
    least = np.partition(scores, -count)[-count]
    chosen: Array = scores > least
    equal = np.flatnonzero(scores == least)
    chosen[equal[: count - np.count_nonzero(chosen)]] = True
    return chosen
