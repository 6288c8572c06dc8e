"""Greedy search and sampling of one hypothesis, step by step. Pure: arrays in, tokens out.

Rules, the same as in training's search:
- Padding and begin are never chosen. A hypothesis ends with the end token, or is cut off at its
  limit.
- Sums of log-probabilities are double precision. `bundle.hypothesis_ranking` normalises scores.
- A sampled token depends on the seed and on its own row, never on other rows of the batch.
- If the network gives a row no probabilities (NaN, for example), the row fails.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weir.bundle.hypothesis_ranking import normalised_score
from weir.server.errors import InvalidRequest
from weir.server.generation.sampling_parameters import SamplingParameters

Array = NDArray[Any]

TokenCallback = Callable[[int, float], None]
"""Called with each token as it is chosen, and its log-probability."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One answer of a search.

    Attributes:
        tokens: without the end token.
        log_probability: of all its steps, the end token included.
        is_complete: whether it ends with the end token; False if a limit cut it off.
        attention: (steps, source tokens), the end token included; None if not wanted.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    is_complete: bool
    attention: Array | None = None

    @property
    def steps(self) -> int:
        """Steps of the decoder that made it, the end token included."""
        return len(self.tokens) + self.is_complete


@dataclass(frozen=True, slots=True)
class DecoderStep:
    """Outputs of one step of the decoder, for every slot.

    Attributes:
        log_probabilities: (slots, tokens), -inf for tokens that are never chosen.
        tokens: the likeliest token of each slot.
        attention: (slots, time), or None.
    """

    log_probabilities: Array
    tokens: Sequence[int]
    values: Sequence[float]
    attention: Array | None


@dataclass(frozen=True, slots=True)
class SearchContext:
    """What all searches of a row share.

    Attributes:
        limit: most steps, 1 or more.
        length_power: exponent of the length normalisation of scores.
        source_tokens: of the row; None if attention is not wanted.
    """

    end: int
    limit: int
    length_power: float
    source_tokens: int | None = None

    def hypothesis(
        self, tokens: Sequence[int], total: float, attention: Sequence[Array]
    ) -> Hypothesis:
        """The hypothesis of chosen tokens, which may end with the end token."""
        is_complete = tokens[-1] == self.end
        return Hypothesis(
            tokens=tuple(tokens[:-1] if is_complete else tokens),
            log_probability=total,
            score=normalised_score(total, len(tokens), self.length_power),
            is_complete=is_complete,
            attention=np.stack(attention) if attention else None,
        )


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a search continues: each slot's token, and the slot whose state it follows."""

    tokens: Sequence[int]
    parents: Sequence[int]


GREEDY = Continuation((), ())
"""The only slot continues with the step's likeliest token, from its own state."""


class TokenSearch(Protocol):
    """A running search; it keeps `slots` slots until it is done.

    Attributes:
        hypotheses: 1 or more, once it is done.
    """

    slots: int
    hypotheses: list[Hypothesis]

    def advance(self, step: DecoderStep, at: Sequence[int]) -> Continuation | None:
        """Take the step of its slots `at`; returns None once it is done.

        Raises:
            Exception: it cannot continue, and has no hypotheses.
        """


@dataclass(slots=True)
class Sampler:
    """Chooses the tokens of one hypothesis: the likeliest ones, or sampled ones.

    Attributes:
        on_token: called with each token except the end token.
    """

    context: SearchContext
    on_token: TokenCallback | None = None
    sampling: SamplingParameters | None = None
    generator: np.random.Generator | None = None
    slots: int = 1
    hypotheses: list[Hypothesis] = field(default_factory=list)
    _tokens: list[int] = field(default_factory=list)
    _total: float = 0.0
    _attention: list[Array] = field(default_factory=list)

    def advance(self, step: DecoderStep, at: Sequence[int]) -> Continuation | None:
        """Choose the next token; see `TokenSearch`."""
        slot, context = at[0], self.context
        token, value = step.tokens[slot], step.values[slot]
        if not math.isfinite(value):
            raise no_probabilities()
        if self.sampling is not None and self.generator is not None:
            token = sample_token(step.log_probabilities[slot], self.sampling, self.generator)
            value = float(step.log_probabilities[slot, token])
        self._tokens.append(token)
        self._total += value
        if context.source_tokens is not None and step.attention is not None:
            self._attention.append(step.attention[slot, : context.source_tokens].copy())
        if self.on_token is not None and token != context.end:
            self.on_token(token, value)
        if token != context.end and len(self._tokens) < context.limit:
            return GREEDY if token == step.tokens[slot] else Continuation((token,), (0,))
        self.hypotheses = [context.hypothesis(self._tokens, self._total, self._attention)]
        return None


def no_probabilities() -> InvalidRequest:
    """The failure of a row without probabilities: its values are invalid for the model."""
    return InvalidRequest("the model gives no probabilities for these values")


def sample_token(
    log_probabilities: Array, sampling: SamplingParameters, generator: np.random.Generator
) -> int:
    """A token sampled from a row (tokens,), after temperature and top-k."""
    scaled = log_probabilities.astype(np.float64) / sampling.temperature
    if 0 < sampling.top_k < len(scaled):
        scaled[~_top_k(scaled, sampling.top_k)] = -np.inf
    sums = np.cumsum(np.exp(scaled - scaled.max()))
    position = int(np.searchsorted(sums, generator.random() * sums[-1], side="right"))
    return min(position, len(sums) - 1)


def _top_k(scores: Array, count: int) -> Array:
    """Mask (tokens,) of the highest scores; among equals the lower ids win.

    Not sorted: to sort 10,000 tokens for 32 rows takes as long as the decoder step itself.
    """
    least = np.partition(scores, -count)[-count]
    chosen: Array = scores > least
    equal = np.flatnonzero(scores == least)
    chosen[equal[: count - np.count_nonzero(chosen)]] = True
    return chosen
