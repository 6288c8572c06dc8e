"""The hypotheses of a beam search between two steps, of all rows at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from weir.training.models.decoder import Step


@dataclass(frozen=True, slots=True)
class Alive:
    """The hypotheses that go on: K of each of R rows.

    Attributes:
        rows: (R,), numbers of source rows.
        flat_rows: (R·K,), likewise, of each hypothesis.
        tokens: (R, K, n), the begin first.
        scores: (R, K), sums of log-probabilities; -inf where there is no hypothesis.
        state: (R·K, S), before the next step.
        attention: (R, K, n - 1, T); None before the first step, or without attention.
    """

    rows: Tensor
    flat_rows: Tensor
    tokens: Tensor
    scores: Tensor
    state: Tensor
    attention: Tensor | None

    @property
    def previous(self) -> Tensor:
        """(R·K,), the last token of each."""
        return self.tokens[:, :, -1].flatten()

    def closed_up(self, going: Tensor) -> "Alive":
        """Without the rows that are not `going` (R,); itself if all are."""
        if going.all():
            return self
        flat = going.repeat_interleave(self.scores.shape[1])  # (R·K,)
        return Alive(
            rows=self.rows[going],
            flat_rows=self.flat_rows[flat],
            tokens=self.tokens[going],
            scores=self.scores[going],
            state=self.state[flat],
            attention=None if self.attention is None else self.attention[going],
        )


class Found(NamedTuple):
    """One hypothesis: its source row, tokens (n,) without the begin, sum, and attention (n, T)."""

    row: int
    tokens: Tensor
    total: float
    attention: Tensor | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """The likeliest continuations of each row, best first, C of each.

    Attributes:
        scores: (R, C), sums of log-probabilities.
        parents: (R, C), which hypothesis of the row each continues.
        tokens: (R, C), with what.
        is_end: (R, C) bool, whether that is the end.
    """

    scores: Tensor
    parents: Tensor
    tokens: Tensor
    is_end: Tensor


def begin(state: Tensor, count: int, width: int, first: int) -> Alive:
    """One hypothesis of each row, the token `first` alone, and room for `width`."""
    rows = torch.arange(count)
    scores = torch.full((count, width), -torch.inf, dtype=torch.float64)
    scores[:, 0] = 0.0
    return Alive(
        rows=rows,
        flat_rows=rows.repeat_interleave(width),
        tokens=torch.full((count, width, 1), first),
        scores=scores,
        state=state.repeat_interleave(width, dim=0),
        attention=None,
    )


def rank(alive: Alive, log_probabilities: Tensor, end: int) -> Ranked:
    """Continue every hypothesis in every way, by log-probabilities (R·K, V)."""
    count, width = alive.scores.shape
    words = log_probabilities.shape[1]
    sums = alive.scores[:, :, None] + log_probabilities.view(count, width, words)  # (R, K, V)
    # Each hypothesis ends in one way only, so among twice as many there are enough that do not.
    scores, places = sums.flatten(1).topk(min(2 * width, width * words))  # (R, C)
    tokens = places % words
    return Ranked(scores, places // words, tokens, tokens == end)


def ended(alive: Alive, ranked: Ranked, made: Step) -> Iterator[Found]:
    """Those of the best K continuations of each row that end."""
    width = alive.scores.shape[1]
    attention = _joined(alive, made.attention)
    are_answers = (ranked.is_end & ranked.scores.isfinite())[:, :width]  # (R, K)
    for row, place in are_answers.nonzero().tolist():
        parent = int(ranked.parents[row, place])
        yield Found(
            row=int(alive.rows[row]),
            tokens=torch.cat([alive.tokens[row, parent, 1:], ranked.tokens[row, place, None]]),
            total=float(ranked.scores[row, place]),
            attention=None if attention is None else attention[row, parent],
        )


def cut_off(alive: Alive, at_limit: Tensor) -> Iterator[Found]:
    """The hypotheses of rows (R,) that may not go on."""
    for row, place in (at_limit[:, None] & alive.scores.isfinite()).nonzero().tolist():
        yield Found(
            row=int(alive.rows[row]),
            tokens=alive.tokens[row, place, 1:],
            total=float(alive.scores[row, place]),
            attention=None if alive.attention is None else alive.attention[row, place],
        )


def go_on(alive: Alive, ranked: Ranked, made: Step) -> Alive:
    """The best K that did not end, with state, tokens and attention of their parents."""
    width = alive.scores.shape[1]
    places = ranked.is_end.to(torch.uint8).argsort(dim=1, stable=True)[:, :width]  # (R, K)
    parents = ranked.parents.gather(1, places)  # (R, K)
    row = torch.arange(len(parents))[:, None]
    newest = ranked.tokens.gather(1, places)[:, :, None]  # (R, K, 1)
    attention = _joined(alive, made.attention)
    return Alive(
        rows=alive.rows,
        flat_rows=alive.flat_rows,
        tokens=torch.cat([alive.tokens[row, parents], newest], dim=2),
        scores=ranked.scores.masked_fill(ranked.is_end, -torch.inf).gather(1, places),
        state=made.state[(row * width + parents).flatten()],
        attention=None if attention is None else attention[row, parents],
    )


def _joined(alive: Alive, attention: Tensor | None) -> Tensor | None:
    """(R, K, n, T), with that of the step just made."""
    if attention is None:
        return None
    newest = attention.view(*alive.scores.shape, 1, -1)  # (R, K, 1, T)
    return newest if alive.attention is None else torch.cat([alive.attention, newest], dim=2)
