"""Greedy and beam search, as functions of a step: the same for PyTorch and for an ONNX graph.

Rules:

- Padding and begin are never chosen. A row ends with the end, or after as many steps as its limit says.
- A row that has ended leaves the batch; what remains is computed closed up.
- A row's answer does not depend on who else is in its batch.
- Scores are log-probabilities divided by ((5 + n) / 6)^a for n steps (Wu et al., 2016, equation 14), the end
  counted; a = 0 leaves them as they are, and prefers short answers.
"""

import torch
from torch import Tensor

from weir.training.errors import RecipeError
from weir.training.seq2seq import beam as beams
from weir.training.seq2seq.hypotheses import MARKS, Hypothesis, Marks, Reading
from weir.training.seq2seq.stepping import Stepper

DEFAULT_LENGTH_POWER = 0.6
"""a: Wu et al. found 0.6 to 0.7 best (section 7)."""


@torch.no_grad()
def greedy(
    step: Stepper,
    state: Tensor,
    limits: Tensor,
    marks: Marks = MARKS,
    *,
    length_power: float = DEFAULT_LENGTH_POWER,
) -> list[Hypothesis]:
    """The likeliest token at every step: one answer a row.

    Args:
        step: makes steps over a batch of B rows.
        state: (B, S), the first.
        limits: (B,), the most steps of each row, from 1; the end is one.
        marks: which tokens begin and end an answer.
        length_power: a.
    """
    answers = _Answers(len(limits), int(limits.max()))
    reading, rows = Reading(marks, length_power), torch.arange(len(limits))
    previous = torch.full_like(rows, marks.begin)
    while len(rows):
        made = step(previous, state, rows)
        best, previous = reading.allowed(made.log_probabilities).max(dim=1)
        answers.add(rows, previous, best, made.attention)
        going = (previous != marks.end) & (answers.steps[rows] < limits[rows])
        state = made.state
        if not going.all():
            rows, state, previous = rows[going], state[going], previous[going]
    return [reading.hypothesis(*answers.of(row)) for row in range(len(limits))]


@torch.no_grad()
def beam(
    step: Stepper,
    state: Tensor,
    limits: Tensor,
    marks: Marks = MARKS,
    *,
    width: int,
    best: int = 1,
    length_power: float = DEFAULT_LENGTH_POWER,
) -> list[list[Hypothesis]]:
    """The best answers of each row, best first, among those that were always among the likeliest.

    At each step a row's `width` hypotheses are continued in every way. Of the likeliest `width` continuations,
    those that end are kept; the likeliest `width` that do not end go on. A row stops when `width` answers
    are kept, or at its limit. Answers that ended come before those that were cut off. A beam of 1 is greedy.

    Args:
        step: as for `greedy`.
        state: likewise.
        limits: likewise.
        marks: likewise.
        width: of the beam, from 1.
        best: how many answers a row at most, up to `width`.
        length_power: a.

    Raises:
        RecipeError: more answers wanted than the beam is wide.
    """
    if not 1 <= best <= width:
        raise RecipeError(f"beam: expected 1 to {width} best answers, as it is wide, got {best}")
    reading = Reading(marks, length_power)
    kept: list[list[Hypothesis]] = [[] for _ in range(len(limits))]
    alive = beams.begin(state, len(limits), width, marks.begin)
    for number in range(1, int(limits.max()) + 1):
        made = step(alive.previous, alive.state, alive.flat_rows)
        ranked = beams.rank(alive, reading.allowed(made.log_probabilities), marks.end)
        for found in beams.ended(alive, ranked, made):
            kept[found.row].append(reading.hypothesis(*found[1:]))
        alive = beams.go_on(alive, ranked, made)
        at_limit = limits[alive.rows] <= number
        for found in beams.cut_off(alive, at_limit):
            kept[found.row].append(reading.hypothesis(*found[1:]))
        is_full = torch.tensor([len(kept[row]) >= width for row in alive.rows.tolist()])
        alive = alive.closed_up(~at_limit & ~is_full & alive.scores.isfinite().any(dim=1))
        if not len(alive.rows):
            break
    ranking = [sorted(each, key=_merit, reverse=True) for each in kept]
    return [answers[:best] for answers in ranking]


def _merit(answer: Hypothesis) -> tuple[bool, float]:
    return answer.is_complete, answer.score


class _Answers:
    """What B rows have answered so far, in at most U steps."""

    def __init__(self, count: int, most: int) -> None:
        self.steps = torch.zeros(count, dtype=torch.int64)  # (B,), how many of each row
        self._tokens = torch.zeros(count, most, dtype=torch.int64)  # (B, U)
        self._totals = torch.zeros(count, dtype=torch.float64)  # (B,)
        self._attention: Tensor | None = None  # (B, U, T)

    def add(
        self, rows: Tensor, tokens: Tensor, log_probabilities: Tensor, attention: Tensor | None
    ) -> None:
        """One step of some rows (N,)."""
        at = self.steps[rows]  # (N,)
        self._tokens[rows, at] = tokens
        self._totals[rows] += log_probabilities
        if attention is not None:
            if self._attention is None:
                self._attention = attention.new_zeros(*self._tokens.shape, attention.shape[1])
            self._attention[rows, at] = attention
        self.steps[rows] += 1

    def of(self, row: int) -> tuple[Tensor, float, Tensor | None]:
        """Tokens (n,), sum of log-probabilities and attention (n, T) of a row."""
        count = int(self.steps[row])
        attention = None if self._attention is None else self._attention[row, :count]
        return self._tokens[row, :count], float(self._totals[row]), attention
