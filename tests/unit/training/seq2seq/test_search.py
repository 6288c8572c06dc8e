"""Searches against exhaustive enumeration, on toy distributions and on a network."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.helpers.encoder_decoders import network, sources
from weir.training.errors import RecipeError
from weir.training.models.decoder import Step
from weir.training.seq2seq.search import CachedRows, Hypothesis, beam, greedy, stepper_of

WORDS = 6
PADDING, BEGIN, END = 0, 2, 3
TOLERANCE = 1e-6
"""Sums of 32 float32 products of size 1; a closed-up batch may sum in another order."""


@dataclass
class Toy:
    """A table (V, V) per row: the next token depends on the previous one and on the step."""

    tables: Tensor  # (B, V, V)
    calls: list[int]

    def __call__(self, previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        self.calls.append(len(previous))
        logits = self.tables[rows, previous] * (1.0 + state)  # (N, V), state (N, 1)
        attention = torch.stack([rows, state[:, 0]], dim=1)  # (N, 2): says who looked, and when
        return Step(torch.log_softmax(logits, dim=1), state + 1.0, attention)


def toy(rows: int, *, seed: int = 0, spread: float = 1.0) -> Toy:
    generator = torch.Generator().manual_seed(seed)
    tables = torch.randn(rows, WORDS, WORDS, generator=generator, dtype=torch.float64)
    return Toy(spread * tables, [])


def first(rows: int) -> Tensor:
    return torch.zeros(rows, 1, dtype=torch.float64)


def every_answer(step: Toy, row: int, limit: int, power: float) -> list[Hypothesis]:
    """All answers of a row, best first, by brute force."""
    words = [token for token in range(WORDS) if token not in (PADDING, BEGIN, END)]
    found = []
    for count in range(limit + 1):
        for tokens in itertools.product(words, repeat=count):
            is_complete = count < limit
            ids = [*tokens, END] if is_complete else [*tokens]
            total, previous = 0.0, BEGIN
            for number, token in enumerate(ids):
                logits = step.tables[row, previous] * (1.0 + number)
                total += float(torch.log_softmax(logits, dim=0)[token])
                previous = token
            score = total / ((5 + len(ids)) / 6) ** power
            found.append(Hypothesis(tokens, total, score, is_complete))
    return sorted(found, key=lambda each: (each.is_complete, each.score), reverse=True)


@pytest.mark.parametrize("power", [0.0, 0.6, 2.0], ids=str)
def test_a_wide_enough_beam_finds_the_best_of_all(power: float) -> None:
    step, limits = toy(3), torch.tensor([4, 2, 3])

    answers = beam(step, first(3), limits, width=60, best=5, length_power=power)

    for row, limit in enumerate(limits.tolist()):
        expected = every_answer(step, row, limit, power)[:5]
        assert [each.tokens for each in answers[row]] == [each.tokens for each in expected]
        for ours, theirs in zip(answers[row], expected, strict=True):
            assert math.isclose(ours.log_probability, theirs.log_probability, rel_tol=1e-9)
            assert math.isclose(ours.score, theirs.score, rel_tol=1e-9)
            assert ours.is_complete == theirs.is_complete


def test_greedy_takes_the_likeliest_at_every_step() -> None:
    step, limits = toy(8), torch.full((8,), 9)

    answers = greedy(step, first(8), limits)

    for row, answer in enumerate(answers):
        previous = BEGIN
        expected: list[int] = []
        while previous != END and len(expected) < 9:
            logits = step.tables[row, previous] * (1.0 + len(expected))
            logits[[PADDING, BEGIN]] = -torch.inf
            previous = int(logits.argmax())
            expected.append(previous)
        assert answer.tokens == tuple(token for token in expected if token != END)
        assert answer.is_complete == (expected[-1] == END)
    assert len({answer.is_complete for answer in answers}) == 2


def test_a_beam_of_1_is_greedy() -> None:
    limits = torch.tensor([9, 3, 7, 9, 9, 1, 9, 9])

    greedily = greedy(toy(8), first(8), limits)
    beamed = beam(toy(8), first(8), limits, width=1)

    for ours, (theirs,) in zip(greedily, beamed, strict=True):
        assert (ours.tokens, ours.is_complete) == (theirs.tokens, theirs.is_complete)
        assert math.isclose(ours.score, theirs.score, rel_tol=1e-12)
        assert ours.attention is not None and theirs.attention is not None
        torch.testing.assert_close(ours.attention, theirs.attention)


@pytest.mark.parametrize("width", [1, 3], ids=str)
def test_an_answer_does_not_depend_on_batch_mates(width: int) -> None:
    step, limits = toy(8), torch.tensor([9, 3, 7, 9, 9, 1, 9, 9])

    together = beam(step, first(8), limits, width=width, best=width)

    for row in range(8):
        own = Toy(step.tables[row : row + 1], [])
        (alone,) = beam(own, first(1), limits[row : row + 1], width=width, best=width)
        assert [each.tokens for each in alone] == [each.tokens for each in together[row]]
        assert [each.score for each in alone] == [each.score for each in together[row]]


def test_marks_are_never_chosen() -> None:
    step = toy(4)
    step.tables[:, :, [PADDING, BEGIN]] = 50.0

    for answer in greedy(step, first(4), torch.full((4,), 5)):
        assert not {PADDING, BEGIN, END} & set(answer.tokens)
    for (answer,) in beam(step, first(4), torch.full((4,), 5), width=3):
        assert not {PADDING, BEGIN, END} & set(answer.tokens)


def test_rows_that_have_ended_are_not_computed() -> None:
    limits = torch.tensor([1, 2, 2, 4])
    greedy_step, beam_step = toy(4), toy(4)
    for step in (greedy_step, beam_step):
        step.tables[:, :, END] = -50.0

    answers = greedy(greedy_step, first(4), limits)
    beam(beam_step, first(4), limits, width=2)

    assert greedy_step.calls == [4, 3, 1, 1]
    assert beam_step.calls == [8, 6, 2, 2]
    assert [len(answer.tokens) for answer in answers] == [1, 2, 2, 4]
    assert not any(answer.is_complete for answer in answers)


def test_attention_is_that_of_the_row_and_step() -> None:
    answers = beam(toy(3), first(3), torch.tensor([5, 4, 5]), width=3, best=3)

    for row, each in enumerate(answers):
        for answer in each:
            steps = len(answer.tokens) + answer.is_complete
            assert answer.attention is not None
            assert answer.attention[:, 0].tolist() == [row] * steps
            assert answer.attention[:, 1].tolist() == list(range(steps))


def test_fewer_answers_than_the_beam_is_wide() -> None:
    """At the limit of 1 there are only as many answers as words."""
    (answers,) = beam(toy(1), first(1), torch.tensor([1]), width=40, best=40)

    assert len(answers) == WORDS - 2 and answers[0].is_complete


def test_more_answers_than_the_beam_is_wide_are_refused() -> None:
    with pytest.raises(RecipeError, match="expected 1 to 2 best answers"):
        beam(toy(1), first(1), torch.tensor([1]), width=2, best=3)


@pytest.mark.parametrize("form", [{}, {"attends": False, "cell": "lstm"}], ids=["gru", "lstm"])
@torch.no_grad()
def test_rows_of_a_network_keep_their_memory(form: dict[str, object]) -> None:
    model, (tokens, lengths) = network(**form), sources()
    limits = lengths + 3
    memory = model.encode(tokens, lengths)
    step = stepper_of(model, memory, lengths)

    greedily = greedy(step, memory.state, limits)
    beamed = beam(step, memory.state, limits, width=3)

    for row in range(len(lengths)):
        own = (tokens[row : row + 1, : lengths[row]], lengths[row : row + 1])
        alone = model.encode(*own)
        bound = stepper_of(model, alone, own[1])
        (ours,) = greedy(bound, alone.state, limits[row : row + 1])
        ((ours_beamed,),) = beam(bound, alone.state, limits[row : row + 1], width=3)
        same(ours, greedily[row])
        same(ours_beamed, beamed[row][0])
    assert len({answer.tokens for answer in greedily}) > 3


def same(ours: Hypothesis, theirs: Hypothesis) -> None:
    assert ours.tokens == theirs.tokens
    assert math.isclose(ours.log_probability, theirs.log_probability, abs_tol=20 * TOLERANCE)


def test_rows_are_picked_once_for_each_change() -> None:
    pick, rows = CachedRows([torch.arange(4), None]), torch.tensor([2, 0])

    first_picked = pick(rows)
    (again, _), (other, none) = pick(rows), pick(torch.tensor([3]))

    assert again is not None and again is first_picked[0] and again.tolist() == [2, 0]
    assert other is not None and other.tolist() == [3] and none is None
