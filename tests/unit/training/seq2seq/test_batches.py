"""Batches of pairs, and their reproducibility."""

import torch

from weir.training.batching import PackedRows, shortest_first
from weir.training.loop import Batch
from weir.training.seq2seq.batches import PackedPairs, in_order, make_task
from weir.training.seq2seq.recipes import ForcingSettings, Seq2SeqRecipe


def some_pairs(count: int = 50) -> PackedPairs:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 7, (2, count), generator=generator).tolist()
    # A row's first id is its own.
    sources = [[10 + row, *[4] * (n - 1)] for row, n in enumerate(lengths[0])]
    return PackedPairs(PackedRows.of_ids(sources), PackedRows.of_ids([[5] * n for n in lengths[1]]))


def same(left: Batch, right: Batch) -> bool:
    pairs = zip((*left.inputs, left.targets), (*right.inputs, right.targets), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_an_epoch_has_each_pair_once_and_is_always_the_same(recipe: Seq2SeqRecipe) -> None:
    pairs = some_pairs()
    task = make_task(pairs, pairs, recipe, mixed=False)

    first, again = list(task.training(0, 0)), list(task.training(0, 0))
    later = list(task.training(0, 5))

    assert len(first) == task.steps == 17
    assert sorted(int(row[0]) for batch in first for row in batch.inputs[0]) == list(range(10, 60))
    assert all(map(same, first, again)) and all(map(same, first[5:], later))
    assert not all(map(same, first, task.training(1, 0)))


def test_pairs_of_like_length_share_a_batch(recipe: Seq2SeqRecipe) -> None:
    pairs = some_pairs()
    task = make_task(pairs, pairs, recipe, mixed=False)

    lengths = [batch.inputs[1] for batch in task.training(0, 0)]

    assert sum(int(each.max() - each.min()) for each in lengths) <= 5


def test_forcing_changes_from_start_to_end(recipe: Seq2SeqRecipe) -> None:
    changed = recipe.model_copy(
        update={"forcing": ForcingSettings(start=1.0, end=0.0), "batch_size": 25, "epochs": 100}
    )
    task = make_task(some_pairs(), some_pairs(), changed, mixed=False)

    first, middle, last = (next(task.training(epoch, 1)) for epoch in (0, 50, 99))

    assert middle.inputs[3].shape == middle.inputs[2].shape
    assert first.inputs[3].float().mean() > 0.9 and last.inputs[3].float().mean() < 0.1
    assert 0.3 < middle.inputs[3].float().mean() < 0.7
    assert same(middle, next(task.training(50, 1)))
    assert len(next(task.validation()).inputs) == 3


def test_full_forcing_has_no_further_input(recipe: Seq2SeqRecipe) -> None:
    task = make_task(some_pairs(), some_pairs(), recipe, mixed=False)

    assert all(len(batch.inputs) == 3 for batch in task.training(1, 0))


def test_validation_has_each_pair_once_the_shortest_first() -> None:
    batches = list(in_order(some_pairs(300)))

    lengths = torch.cat([batch.inputs[1] for batch in batches])
    assert len(lengths) == 300 and torch.equal(lengths, lengths.sort().values)


def test_sources_come_with_their_rows() -> None:
    sources = some_pairs().sources

    batches = list(shortest_first(sources.lengths, 16))

    assert [len(rows) for rows in batches] == [16, 16, 16, 2]
    for rows in batches:
        tokens = sources.take(rows, 0)
        assert torch.equal(tokens[:, 0], rows + 10)
        assert torch.equal((tokens != 0).sum(1), sources.lengths[rows])
