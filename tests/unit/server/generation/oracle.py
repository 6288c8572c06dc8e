"""PyTorch's own search over a small network, and the server's over the same steps, row by row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.encoder_decoders import network, sources
from weir.server.generation.sampling import (
    GREEDY,
    Continuation,
    DecoderStep,
    Hypothesis,
    SearchContext,
    TokenSearch,
)
from weir.training.models.decoder import Memory
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq import search as training
from weir.training.seq2seq.search import stepper_of

PAD, BEGIN, END = 0, 2, 3
ROWS = 12

# Sums of float32 log-probabilities of a batch and of a row alone, which torch adds up in another
# order.
TOLERANCE = 2e-5

FORMS: dict[str, dict[str, object]] = {
    "gru": {},
    "deep lstm": {"cell": "lstm", "layers": 2, "decoder_layers": 2},
    "no attention": {"attends": False},
}
every_network = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


@dataclass
class Case:
    """One network and sources of unequal length."""

    form: dict[str, object]
    limit: int = 9
    length_power: float = 0.6

    @cached_property
    def network(self) -> EncoderDecoder:
        with torch.random.fork_rng():
            return network(**self.form)

    @cached_property
    def encoded(self) -> tuple[Memory, Tensor]:
        tokens, lengths = sources(ROWS)
        with torch.inference_mode():
            return self.network.encode(tokens, lengths), lengths

    def greedy(self) -> list[training.Hypothesis]:
        memory, lengths = self.encoded
        step = stepper_of(self.network, memory, lengths)
        return training.greedy(step, memory.state, self._limits, length_power=self.length_power)

    def beam(self, width: int, best: int) -> list[list[training.Hypothesis]]:
        memory, lengths = self.encoded
        step = stepper_of(self.network, memory, lengths)
        return training.beam(
            step,
            memory.state,
            self._limits,
            width=width,
            best=best,
            length_power=self.length_power,
        )

    def answers(self, begin: Callable[[SearchContext], TokenSearch]) -> list[list[Hypothesis]]:
        """The hypotheses of the server's search for each row alone."""
        _, lengths = self.encoded
        return [self._answer(row, int(lengths[row]), begin) for row in range(ROWS)]

    @property
    def _limits(self) -> Tensor:
        return torch.full((ROWS,), self.limit)

    def _answer(
        self, row: int, length: int, begin: Callable[[SearchContext], TokenSearch]
    ) -> list[Hypothesis]:
        searching = begin(SearchContext(END, self.limit, self.length_power, length))
        memory, lengths = self.encoded
        rows = torch.full((searching.slots,), row)
        make = stepper_of(self.network, memory, lengths)
        state, previous = memory.state[rows], torch.full_like(rows, BEGIN)
        # One step above the limit: an endless search fails the test instead of hanging.
        for _ in range(self.limit + 1):
            made = make(previous, state, rows)
            taken = as_step(made.log_probabilities, made.attention)
            move = searching.advance(taken, range(searching.slots))
            if move is None:
                return searching.hypotheses
            if move is GREEDY:
                move = Continuation(taken.tokens[:1], (0,))
            previous, state = torch.tensor(move.tokens), made.state[list(move.parents)]
        raise AssertionError(f"row {row}: more than {self.limit} steps")


def as_step(log_probabilities: Tensor, attention: Tensor | None) -> DecoderStep:
    table = log_probabilities.numpy().copy()
    table[:, [PAD, BEGIN]] = -np.inf
    tokens = table.argmax(axis=1)
    values = table[np.arange(len(tokens)), tokens]
    seen = None if attention is None else attention.numpy()
    return DecoderStep(table, tokens.tolist(), values.tolist(), seen)


def assert_same(
    answers: Sequence[Sequence[Hypothesis]], wanted: Sequence[Sequence[training.Hypothesis]]
) -> None:
    for own, trained in zip(answers, wanted, strict=True):
        assert [each.tokens for each in own] == [each.tokens for each in trained]
        assert [each.is_complete for each in own] == [each.is_complete for each in trained]
        for answer, hypothesis in zip(own, trained, strict=True):
            assert_close(answer.log_probability, hypothesis.log_probability)
            assert_close(answer.score, hypothesis.score)
            if hypothesis.attention is None:
                assert answer.attention is None
                continue
            assert answer.attention is not None
            tokens = answer.attention.shape[1]
            assert_close(answer.attention, hypothesis.attention[:, :tokens].numpy())
            assert (hypothesis.attention[:, tokens:] == 0).all()


def assert_close(actual: object, expected: object) -> None:
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), np.asarray(expected, np.float64), rtol=0, atol=TOLERANCE
    )
