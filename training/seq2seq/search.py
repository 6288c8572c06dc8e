"""Greedy and beam search over decoder steps; the stepper may be a PyTorch network or an ONNX graph.

Rules:

- Padding and begin are never chosen. A row ends with the end token or at its limit of steps.
- A row that has ended leaves the batch; the remaining rows are computed without it.
- A row's hypotheses do not depend on the other rows of its batch.
- Beams, ranks and scores follow `weir.bundle.hypothesis_ranking`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from weir.bundle import hypothesis_ranking as rules
from weir.bundle.hypothesis_ranking import DEFAULT_LENGTH_POWER
from weir.training.errors import RecipeError
from weir.training.models.decoder import Memory, Step
from weir.training.models.seq2seq import EncoderDecoder


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids that are not text; the defaults are those of `weir.training.data.vocabulary`."""

    padding: int = 0
    begin: int = 2
    end: int = 3


SPECIAL_TOKENS = SpecialTokens()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One output sequence of a search.

    Attributes:
        tokens: ids, without begin and end.
        log_probability: sum over all steps, the end step included.
        score: `log_probability`, normalised by length.
        is_complete: the output ended with the end token; False if the limit cut it off.
        attention: (n, T), weights of each step, the end step included; None without attention.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    is_complete: bool
    attention: Tensor | None = None


class Stepper(Protocol):
    """One decoder step over rows of an encoded batch.

    A search drops rows that have ended and repeats rows for their hypotheses. Each call therefore
    names the source row of every state, and the stepper selects these rows of the encoder's memory.
    """

    def __call__(self, previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        """Step from states (N, S) after tokens (N,), with source rows `rows` (N,)."""


class CachedRows:
    """Selects rows of tensors, and keeps the last selection.

    A search passes the same tensor of row numbers until they change, so most steps copy nothing.
    """

    def __init__(self, tensors: Sequence[Tensor | None]) -> None:
        self._tensors = tensors
        self._rows: Tensor | None = None
        self._selected: Sequence[Tensor | None] = ()

    def __call__(self, rows: Tensor) -> Sequence[Tensor | None]:
        """The given rows of each tensor; None stays None."""
        if rows is not self._rows:
            self._rows = rows
            self._selected = [
                None if tensor is None else tensor.index_select(0, rows) for tensor in self._tensors
            ]
        return self._selected


def stepper_of(network: EncoderDecoder, memory: Memory, lengths: Tensor) -> Stepper:
    """The stepper of a PyTorch network in eval mode, over an encoded batch."""
    select = CachedRows([memory.states, memory.keys, memory.context, lengths])

    def step(previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        states, keys, context, own_lengths = select(rows)
        own = Memory(states, keys, state, context)
        with torch.inference_mode():
            return network.step(
                previous, state, own, lengths if own_lengths is None else own_lengths
            )

    return step


@torch.no_grad()
def greedy(
    step: Stepper,
    state: Tensor,
    limits: Tensor,
    special: SpecialTokens = SPECIAL_TOKENS,
    *,
    length_power: float = DEFAULT_LENGTH_POWER,
) -> list[Hypothesis]:
    """Greedy search: the likeliest token at every step, one hypothesis per row.

    Args:
        state: (B, S), the first state.
        limits: (B,), the most steps of each row, from 1; the end step counts.
        length_power: a, by which scores are normalised by length.
    """
    count, most = len(limits), int(limits.max())
    steps = torch.zeros(count, dtype=torch.int64)  # (B,), steps so far
    tokens = torch.zeros(count, most, dtype=torch.int64)  # (B, U)
    totals = torch.zeros(count, dtype=torch.float64)  # (B,)
    attention: Tensor | None = None  # (B, U, T)
    rows = torch.arange(count)
    previous = torch.full_like(rows, special.begin)
    while len(rows):
        made = step(previous, state, rows)
        best, previous = _allowed(made.log_probabilities, special).max(dim=1)
        at = steps[rows]  # (N,)
        tokens[rows, at] = previous
        totals[rows] += best
        if made.attention is not None:
            if attention is None:
                attention = made.attention.new_zeros(count, most, made.attention.shape[1])
            attention[rows, at] = made.attention
        steps[rows] += 1
        going = (previous != special.end) & (steps[rows] < limits[rows])
        state = made.state
        if not going.all():
            rows, state, previous = rows[going], state[going], previous[going]
    return [
        _hypothesis(
            tokens[row, :length],
            float(totals[row]),
            None if attention is None else attention[row, :length],
            special,
            length_power,
        )
        for row, length in enumerate(steps.tolist())
    ]


@torch.no_grad()
def beam(
    step: Stepper,
    state: Tensor,
    limits: Tensor,
    special: SpecialTokens = SPECIAL_TOKENS,
    *,
    width: int,
    best: int = 1,
    length_power: float = DEFAULT_LENGTH_POWER,
) -> list[list[Hypothesis]]:
    """Beam search: up to `best` hypotheses per row, the best first; a beam of 1 is greedy search.

    `best` is from 1 to `width`, else a `RecipeError`. The other arguments are those of `greedy`.
    """
    if not 1 <= best <= width:
        raise RecipeError(f"beam: expected 1 to {width} best answers, as it is wide, got {best}")
    kept: list[list[Hypothesis]] = [[] for _ in range(len(limits))]

    def keep(ended: Iterator[_Ended]) -> None:
        for row, ids, total, attention in ended:
            kept[row].append(_hypothesis(ids, total, attention, special, length_power))

    beams = _begin(state, len(limits), width, special.begin)
    for number in range(1, int(limits.max()) + 1):
        made = step(beams.tokens[:, :, -1].flatten(), beams.state, beams.flat_rows)
        ranked = _rank(beams, _allowed(made.log_probabilities, special), special.end)
        keep(_completed(beams, ranked, made))
        beams = _continue(beams, ranked, made)
        keep(_cut_off(beams, at_limit=limits[beams.rows] <= number))
        going = torch.tensor(
            [
                not rules.is_finished(
                    kept=len(kept[row]), width=width, steps=number, limit=int(limits[row])
                )
                for row in beams.rows.tolist()
            ]
        )
        beams = beams.take(going & beams.scores.isfinite().any(dim=1))
        if not len(beams.rows):
            break
    return [rules.ranked(hypotheses)[:best] for hypotheses in kept]


def _hypothesis(
    ids: Tensor, total: float, attention: Tensor | None, special: SpecialTokens, length_power: float
) -> Hypothesis:
    """The hypothesis of ids (n,), which include the end token if the output is complete."""
    tokens = ids.tolist()
    is_complete = tokens[-1] == special.end
    return Hypothesis(
        tokens=tuple(tokens[:-1] if is_complete else tokens),
        log_probability=total,
        score=rules.normalised_score(total, len(tokens), length_power),
        is_complete=is_complete,
        attention=attention,
    )


def _allowed(log_probabilities: Tensor, special: SpecialTokens) -> Tensor:
    """A copy without padding and begin, in double precision, so that long sums keep their order."""
    allowed = log_probabilities.to(torch.float64, copy=True)
    allowed[:, [special.padding, special.begin]] = -torch.inf
    return allowed


@dataclass(frozen=True, slots=True)
class _Beams:
    """The hypotheses that continue: K for each of R rows.

    Attributes:
        rows: (R,), numbers of source rows.
        flat_rows: (R·K,), the source row of each hypothesis.
        tokens: (R, K, n), begin included.
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

    def take(self, going: Tensor) -> "_Beams":
        """The rows where `going` (R,) is True; the same object if all are."""
        if going.all():
            return self
        flat = going.repeat_interleave(self.scores.shape[1])  # (R·K,)
        return _Beams(
            rows=self.rows[going],
            flat_rows=self.flat_rows[flat],
            tokens=self.tokens[going],
            scores=self.scores[going],
            state=self.state[flat],
            attention=None if self.attention is None else self.attention[going],
        )

    def attention_with(self, newest: Tensor | None) -> Tensor | None:
        """(R, K, n, T): the attention so far with that of the step just made, (R·K, T)."""
        if newest is None:
            return None
        newest = newest.view(*self.scores.shape, 1, -1)  # (R, K, 1, T)
        return newest if self.attention is None else torch.cat([self.attention, newest], dim=2)


class _Ended(NamedTuple):
    """An ended hypothesis: source row, ids (n,) without begin, score sum, attention (n, T)."""

    row: int
    ids: Tensor
    total: float
    attention: Tensor | None


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The likeliest C continuations of each row, best first.

    Attributes:
        scores: (R, C), sums of log-probabilities.
        parents: (R, C), the hypothesis of the row that each continues.
        tokens: (R, C), the added token.
        is_end: (R, C) bool, whether that is the end token.
    """

    scores: Tensor
    parents: Tensor
    tokens: Tensor
    is_end: Tensor


def _begin(state: Tensor, count: int, width: int, first: int) -> _Beams:
    """One hypothesis per row, the token `first` alone, and room for `width`."""
    rows = torch.arange(count)
    scores = torch.full((count, width), -torch.inf, dtype=torch.float64)
    scores[:, 0] = 0.0
    return _Beams(
        rows=rows,
        flat_rows=rows.repeat_interleave(width),
        tokens=torch.full((count, width, 1), first),
        scores=scores,
        state=state.repeat_interleave(width, dim=0),
        attention=None,
    )


def _rank(beams: _Beams, log_probabilities: Tensor, end: int) -> _Ranked:
    """Rank every continuation of every hypothesis, by log-probabilities (R·K, V)."""
    count, width = beams.scores.shape
    words = log_probabilities.shape[1]
    sums = beams.scores[:, :, None] + log_probabilities.view(count, width, words)  # (R, K, V)
    scores, places = sums.flatten(1).topk(rules.candidates(width, words))  # (R, C)
    tokens = places % words
    return _Ranked(scores, places // words, tokens, tokens == end)


def _completed(beams: _Beams, ranked: _Ranked, made: Step) -> Iterator[_Ended]:
    """The continuations that end, among the best K of each row."""
    width = beams.scores.shape[1]
    attention = beams.attention_with(made.attention)
    is_complete = (ranked.is_end & ranked.scores.isfinite())[:, :width]  # (R, K)
    for row, place in is_complete.nonzero().tolist():
        parent = int(ranked.parents[row, place])
        yield _Ended(
            row=int(beams.rows[row]),
            ids=torch.cat([beams.tokens[row, parent, 1:], ranked.tokens[row, place, None]]),
            total=float(ranked.scores[row, place]),
            attention=None if attention is None else attention[row, parent],
        )


def _cut_off(beams: _Beams, at_limit: Tensor) -> Iterator[_Ended]:
    """The hypotheses of rows that are `at_limit` (R,)."""
    for row, place in (at_limit[:, None] & beams.scores.isfinite()).nonzero().tolist():
        yield _Ended(
            row=int(beams.rows[row]),
            ids=beams.tokens[row, place, 1:],
            total=float(beams.scores[row, place]),
            attention=None if beams.attention is None else beams.attention[row, place],
        )


def _continue(beams: _Beams, ranked: _Ranked, made: Step) -> _Beams:
    """The best K continuations that do not end, with state and attention of their parents."""
    width = beams.scores.shape[1]
    places = ranked.is_end.to(torch.uint8).argsort(dim=1, stable=True)[:, :width]  # (R, K)
    parents = ranked.parents.gather(1, places)  # (R, K)
    row = torch.arange(len(parents))[:, None]
    newest = ranked.tokens.gather(1, places)[:, :, None]  # (R, K, 1)
    attention = beams.attention_with(made.attention)
    return _Beams(
        rows=beams.rows,
        flat_rows=beams.flat_rows,
        tokens=torch.cat([beams.tokens[row, parents], newest], dim=2),
        scores=ranked.scores.masked_fill(ranked.is_end, -torch.inf).gather(1, places),
        state=made.state[(row * width + parents).flatten()],
        attention=None if attention is None else attention[row, parents],
    )
