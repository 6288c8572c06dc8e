"""Batches of rows of similar length."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from weir.training.batching import EVALUATION_ROWS, PackedRows, group_by_length
from weir.training.data.text import TextData
from weir.training.data.vocabulary import PAD, UNKNOWN
from weir.training.loop import Batch
from weir.training.text.batches import (
    Sequences,
    build_vocabularies,
    hidden_shares,
    in_order,
    make_task,
    pack,
)
from weir.training.text.experiment import prepare
from weir.training.text.recipes import SequenceRecipe, TokenSettings

LENGTHS = torch.randint(1, 60, (1013,), generator=torch.Generator().manual_seed(0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def padding(batches: list[Tensor]) -> int:
    """Steps that are computed for nothing."""
    return sum(int((LENGTHS[rows].max() - LENGTHS[rows]).sum()) for rows in batches)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1013, 5000])
def test_every_row_comes_once_in_full_batches_and_one_rest(batch_size: int) -> None:
    batches = group_by_length(LENGTHS, batch_size, seeded(1))

    assert Counter(torch.cat(batches).tolist()) == Counter(range(len(LENGTHS)))
    sizes = Counter(len(rows) for rows in batches)
    whole, rest = divmod(len(LENGTHS), batch_size)
    assert sizes == Counter({batch_size: whole}) + Counter({rest: bool(rest)})


def test_order_is_the_seeds() -> None:
    one, same, other = (group_by_length(LENGTHS, 16, seeded(seed)) for seed in (1, 1, 2))

    assert all(map(torch.equal, one, same))
    assert not all(map(torch.equal, one, other))


def test_far_less_is_padded_than_in_a_random_order() -> None:
    unsorted = list(torch.split(torch.randperm(len(LENGTHS), generator=seeded(1)), 16))

    assert padding(group_by_length(LENGTHS, 16, seeded(1))) < 0.2 * padding(unsorted)


def test_batches_are_not_sorted_by_length() -> None:
    longest = [int(LENGTHS[rows].max()) for rows in group_by_length(LENGTHS, 16, seeded(1))]

    assert longest != sorted(longest)


def test_evaluation_takes_each_row_once_with_its_own_target() -> None:
    count = EVALUATION_ROWS + 44
    lengths = LENGTHS[:count]
    steps = torch.arange(count).repeat_interleave(lengths)[:, None] % 251
    rows = PackedRows.of(steps.to(torch.uint8), lengths)
    packed = Sequences(rows, torch.arange(count), is_tagged=False)

    batches = list(in_order(packed))

    assert [len(batch.targets) for batch in batches] == [EVALUATION_ROWS, 44]
    assert sorted(torch.cat([batch.targets for batch in batches]).tolist()) == list(range(count))
    for batch in batches:
        frames, sizes = batch.inputs
        assert torch.equal(frames[:, 0, 0], batch.targets % 251)
        assert torch.equal(sizes, lengths[batch.targets])


def equal(one: Batch, other: Batch) -> bool:
    pairs = zip((*one.inputs, one.targets), (*other.inputs, other.targets), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_a_resumed_epoch_continues_with_the_same_batches(tagging: SequenceRecipe) -> None:
    problem = prepare(tagging)
    task = make_task(problem.train, problem.validation, tagging, len(problem.classes), mixed=False)

    whole = list(task.training(1, 0))
    rest = list(task.training(1, 4))
    another = list(task.training(2, 0))

    assert len(whole) == task.steps
    assert all(map(equal, whole[4:], rest)) and len(rest) == task.steps - 4
    assert not all(map(equal, whole, another))
    assert (task.rows_are, task.targets_are) == ("sentences", "tokens")


def test_the_share_of_hidden_words_is_the_recipes(tagging: SequenceRecipe) -> None:
    share = 0.3
    tokens = tagging.tokens
    assert tokens is not None
    hiding = tagging.model_copy(
        update={"tokens": tokens.model_copy(update={"unknown_share": share})}
    )
    problem = prepare(hiding)
    task = make_task(problem.train, problem.validation, hiding, len(problem.classes), mixed=False)

    hidden = total = 0
    for epoch in range(10):
        for batch in task.training(epoch, 0):
            hidden += int((batch.inputs[0] == UNKNOWN).sum())
            total += int(batch.inputs[1].sum())

    # Every word is frequent here, so that none is unknown of itself.
    deviation = (share * (1 - share) / total) ** 0.5
    assert hidden / total == pytest.approx(share, abs=4 * deviation)
    assert not any((batch.inputs[0] == UNKNOWN).any() for batch in task.validation())


def test_the_share_of_hidden_letters_is_the_recipes(tagging: SequenceRecipe) -> None:
    share = 0.3
    assert tagging.tokens is not None
    tokens = tagging.tokens.model_copy(update={"unknown_letter_share": share})
    hiding = tagging.model_copy(update={"tokens": tokens})
    problem = prepare(hiding)
    task = make_task(problem.train, problem.validation, hiding, len(problem.classes), mixed=False)

    letters = torch.cat([batch.inputs[2].flatten() for batch in task.training(0, 0)])
    read = torch.cat([batch.inputs[2].flatten() for batch in task.validation()])

    total = int((letters != PAD).sum())
    deviation = (share * (1 - share) / total) ** 0.5
    hidden = int((letters == UNKNOWN).sum()) / total
    assert hidden == pytest.approx(share, abs=4 * deviation)
    assert not (read == UNKNOWN).any()


def test_rare_words_are_hidden_more_often() -> None:
    rows = (("a",) * 8, ("b", "b", "a"), ("c",))
    data = TextData("tiny", rows, (("X",), ("X",), ("X",)), is_tagged=False, checksum="0")

    def shares(**settings: float) -> list[float] | None:
        tokens = TokenSettings.model_validate({"size": 4, **settings})
        packed = pack(data, ("X",), build_vocabularies(rows, tokens), tokens)
        found = hidden_shares(packed, tokens)
        return None if found is None else found.tolist()

    a, b, c = 0.5 / 9.5, 0.5 / 2.5, 0.5 / 1.5
    assert shares(word_dropout_alpha=0.5) == pytest.approx([a] * 8 + [b, b, a, c])
    assert shares(word_dropout_alpha=0.5, unknown_share=0.1) == pytest.approx(
        [0.1] * 8 + [b, b, 0.1, c]
    )
    assert shares(unknown_share=0.1) == pytest.approx([0.1] * 12)
    assert shares() is None
