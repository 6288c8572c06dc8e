"""A beam search under way: the best answers among those that were always among the likeliest.

At each step the beam's hypotheses are continued in every way. Of the likeliest continuations, as many as the beam is
wide, those that end are kept; the likeliest that do not end go on. It is done once as many answers are kept as it is
wide, or at its limit. Answers that ended come before those that were cut off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weir.server.generation.sampling import Answer, Array, Frame, Move, Step, without_probabilities


@dataclass(frozen=True, slots=True)
class _Link:
    """What one step added to the hypotheses (K,), each to that of its parent before the step."""

    tokens: list[int]
    parents: list[int]
    attention: Array | None


class Beam:
    """The hypotheses of one row between two steps.

    Args:
        frame: of the row.
        width: how many hypotheses go on.
        best: how many answers are wanted, up to `width`.
    """

    def __init__(self, frame: Frame, width: int, best: int) -> None:
        self.slots = width
        self.answers: list[Answer] = []
        self._frame = frame
        self._best = best
        self._kept: list[Answer] = []
        self._links: list[_Link] = []
        # All slots begin with the same state: only the first may be continued, or all would go the same way.
        self._sums = np.full(width, -np.inf)  # (K,)
        self._sums[0] = 0.0

    def advance(self, step: Step, at: Sequence[int]) -> Move | None:
        """See `search.Searching`."""
        width, frame = self.slots, self._frame
        sums, parents, tokens = self._rank(step.log_probabilities[list(at)])
        is_end = tokens == frame.end  # (C,)
        attention = self._attention_of(step, at)
        for place in np.flatnonzero(is_end[:width] & np.isfinite(sums[:width])).tolist():
            path = self._path(int(parents[place]), attention)
            self._keep([*path.tokens, frame.end], float(sums[place]), path.attention)
        places = np.argsort(is_end, kind="stable")[:width]  # (K,)
        self._sums = np.where(is_end[places], -np.inf, sums[places])
        link = _Link(tokens[places].tolist(), parents[places].tolist(), attention)
        self._links.append(link)
        if len(self._links) >= frame.limit:
            self._cut_off()
        is_over = len(self._links) >= frame.limit or len(self._kept) >= width
        if not is_over and np.isfinite(self._sums).any():
            return Move(link.tokens, link.parents)
        if not self._kept:
            raise without_probabilities()
        ranking = sorted(self._kept, key=lambda each: (each.is_complete, each.score), reverse=True)
        self.answers = ranking[: self._best]
        return None

    def _rank(self, log_probabilities: Array) -> tuple[Array, Array, Array]:
        """Sums, parents and tokens (C,) of the likeliest continuations, best first."""
        words = log_probabilities.shape[1]
        with np.errstate(invalid="ignore"):
            sums = (self._sums[:, None] + log_probabilities).ravel()  # (K·V,)
        # Each hypothesis ends in one way only, so among twice as many there are enough that do not.
        count = min(2 * self.slots, len(sums))
        places = np.argpartition(-sums, count - 1)[:count]
        # By place where sums are equal, for the answer not to depend on the partition.
        places = places[np.lexsort((places, -sums[places]))]
        return sums[places], places // words, places % words

    def _attention_of(self, step: Step, at: Sequence[int]) -> Array | None:
        if self._frame.source_tokens is None or step.attention is None:
            return None
        return step.attention[list(at), : self._frame.source_tokens]  # (K, T), a copy

    def _path(self, hypothesis: int, newest: Array | None) -> "_Path":
        """What led to a hypothesis, and where the step after it looked."""
        tokens: list[int] = []
        attention = [] if newest is None else [newest[hypothesis]]
        for link in reversed(self._links):
            tokens.append(link.tokens[hypothesis])
            hypothesis = link.parents[hypothesis]
            if link.attention is not None:
                attention.append(link.attention[hypothesis])
        return _Path(tokens[::-1], attention[::-1])

    def _cut_off(self) -> None:
        for place in np.flatnonzero(np.isfinite(self._sums)).tolist():
            path = self._path(place, None)
            self._keep(path.tokens, float(self._sums[place]), path.attention)

    def _keep(self, tokens: list[int], total: float, attention: list[Array]) -> None:
        self._kept.append(self._frame.answer(tokens, total, attention))


@dataclass(frozen=True, slots=True)
class _Path:
    tokens: list[int]
    attention: list[Array]
