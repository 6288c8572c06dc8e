"""What a search finds: answers with their scores."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Marks:
    """The ids that are no words; by default those of `weir.training.data.vocabulary`."""

    padding: int = 0
    begin: int = 2
    end: int = 3


MARKS = Marks()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One answer.

    Attributes:
        tokens: without begin and end.
        log_probability: of all its steps, the end among them.
        score: that, normalised by length.
        is_complete: it came to the end; else the limit cut it off.
        attention: (n, T), where each step looked, that of the end too; None without attention.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    is_complete: bool
    attention: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How tokens chosen become an answer.

    Attributes:
        marks: which tokens begin and end it.
        length_power: a of the normalisation, see `weir.training.seq2seq.search`.
    """

    marks: Marks
    length_power: float

    def hypothesis(self, chosen: Tensor, total: float, attention: Tensor | None) -> Hypothesis:
        """The answer of tokens (n,), the end among them if it came to that."""
        ids = chosen.tolist()
        is_complete = ids[-1] == self.marks.end
        return Hypothesis(
            tokens=tuple(ids[:-1] if is_complete else ids),
            log_probability=total,
            score=total / ((5 + len(ids)) / 6) ** self.length_power,
            is_complete=is_complete,
            attention=attention,
        )

    def allowed(self, log_probabilities: Tensor) -> Tensor:
        """A copy without padding and begin, in double precision: sums of many steps keep their order."""
        allowed = log_probabilities.to(torch.float64, copy=True)
        allowed[:, [self.marks.padding, self.marks.begin]] = -torch.inf
        return allowed
