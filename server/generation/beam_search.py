"""Beam search of one row, step by step. Pure; `bundle.hypothesis_ranking` holds the rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weir.bundle import hypothesis_ranking as rules
from weir.server.generation.sampling import (
    Array,
    Continuation,
    DecoderStep,
    Hypothesis,
    SearchContext,
    no_probabilities,
)


@dataclass(frozen=True, slots=True)
class _Link:
    """What one step added to the K hypotheses, each to its parent before the step."""

    tokens: list[int]
    parents: list[int]
    attention: Array | None


class BeamSearch:
    """The hypotheses of one row between two steps."""

    def __init__(self, context: SearchContext, width: int, n_best: int) -> None:
        self.slots = width
        self.hypotheses: list[Hypothesis] = []
        self._context = context
        self._n_best = n_best
        self._kept: list[Hypothesis] = []
        self._links: list[_Link] = []
        # All slots start with the same state. Only the first may be continued, or all would find
        # the same hypotheses.
        self._sums = np.full(width, -np.inf)  # (K,)
        self._sums[0] = 0.0

    def advance(self, step: DecoderStep, at: Sequence[int]) -> Continuation | None:
        """Continue the hypotheses by one token; see `sampling.TokenSearch`."""
        width, context = self.slots, self._context
        sums, parents, tokens = self._rank(step.log_probabilities[list(at)])
        is_end = tokens == context.end  # (C,)
        attention = self._attention_of(step, at)
        for place in np.flatnonzero(is_end[:width] & np.isfinite(sums[:width])).tolist():
            path, seen = self._path(int(parents[place]), attention)
            self._kept.append(context.hypothesis([*path, context.end], float(sums[place]), seen))
        places = np.argsort(is_end, kind="stable")[:width]  # (K,)
        self._sums = np.where(is_end[places], -np.inf, sums[places])
        link = _Link(tokens[places].tolist(), parents[places].tolist(), attention)
        self._links.append(link)
        steps = len(self._links)
        if steps >= context.limit:
            self._cut_off()
        is_over = rules.is_finished(
            kept=len(self._kept), width=width, steps=steps, limit=context.limit
        )
        if not is_over and np.isfinite(self._sums).any():
            return Continuation(link.tokens, link.parents)
        if not self._kept:
            raise no_probabilities()
        self.hypotheses = rules.ranked(self._kept)[: self._n_best]
        return None

    def _rank(self, log_probabilities: Array) -> tuple[Array, Array, Array]:
        """Sums, parents and tokens (C,) of the likeliest continuations, best first."""
        vocabulary = log_probabilities.shape[1]
        with np.errstate(invalid="ignore"):
            sums = (self._sums[:, None] + log_probabilities).ravel()  # (K·V,)
        count = rules.candidates(self.slots, vocabulary)
        places = np.argpartition(-sums, count - 1)[:count]
        # Equal sums are ranked by place, so that the result does not depend on the partition.
        places = places[np.lexsort((places, -sums[places]))]
        return sums[places], places // vocabulary, places % vocabulary

    def _attention_of(self, step: DecoderStep, at: Sequence[int]) -> Array | None:
        if self._context.source_tokens is None or step.attention is None:
            return None
        return step.attention[list(at), : self._context.source_tokens]  # (K, T), a copy

    def _path(self, hypothesis: int, newest: Array | None) -> tuple[list[int], list[Array]]:
        """Tokens of a hypothesis, and the attention of each step; `newest` is the last."""
        tokens: list[int] = []
        attention = [] if newest is None else [newest[hypothesis]]
        for link in reversed(self._links):
            tokens.append(link.tokens[hypothesis])
            hypothesis = link.parents[hypothesis]
            if link.attention is not None:
                attention.append(link.attention[hypothesis])
        return tokens[::-1], attention[::-1]

    def _cut_off(self) -> None:
        """Keep the hypotheses that the limit cuts off."""
        for place in np.flatnonzero(np.isfinite(self._sums)).tolist():
            path, seen = self._path(place, None)
            self._kept.append(self._context.hypothesis(path, float(self._sums[place]), seen))
