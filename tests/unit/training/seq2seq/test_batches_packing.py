"""Pairs as padded batches."""

import pytest
import torch

from weir.training.batching import PackedRows
from weir.training.data.pairs import PairData
from weir.training.data.tokenizer import Sides, learn_side
from weir.training.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from weir.training.errors import DataError
from weir.training.optimization import NO_TARGET
from weir.training.seq2seq.batches import PackedPairs, drop_long, pack
from weir.training.seq2seq.recipes import Seq2SeqRecipe

DATA = PairData("x", ("ab", "c", "abc"), (("A B",), ("K", "S K S"), ("A",)), "0")


@pytest.fixture
def sides() -> Sides:
    # Ids: a 4, b 5, c 6; A 4, K 5, S 6, B 7.
    return Sides(learn_side(["aaaabbc"], "letters"), learn_side(["A A A A K K K S S B"], "spaces"))


def test_every_target_is_a_pair(sides: Sides) -> None:
    pairs = pack(DATA, sides)

    assert len(pairs) == 4
    assert pairs.sources.steps.tolist() == [4, 5, 6, 6, 4, 5, 6]
    assert pairs.sources.lengths.tolist() == [2, 1, 1, 3]
    assert pairs.targets.steps.tolist() == [4, 7, 5, 6, 5, 6, 4]
    assert pairs.targets.lengths.tolist() == [2, 1, 3, 1]


def test_a_batch_is_padded_and_moved_by_one(sides: Sides) -> None:
    batch = pack(DATA, sides).take(torch.tensor([3, 2]))

    tokens, lengths, previous = batch.inputs
    assert tokens.tolist() == [[4, 5, 6], [6, PAD, PAD]]
    assert lengths.tolist() == [3, 1]
    assert previous.tolist() == [[BEGIN, 4, PAD, PAD], [BEGIN, 6, 5, 6]]
    assert batch.targets.tolist() == [[4, END, NO_TARGET, NO_TARGET], [6, 5, 6, END]]


def test_forced_is_part_of_the_inputs(sides: Sides) -> None:
    forced = torch.tensor([[True, False]])

    *_, given = pack(DATA, sides).take(torch.tensor([3]), forced).inputs

    assert given is forced


def test_batches_hold_what_was_encoded() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 9, (2, 40), generator=generator).tolist()
    rows = [
        [torch.randint(4, 30, (count,), generator=generator).tolist() for count in side]
        for side in counts
    ]
    pairs = PackedPairs(PackedRows.of_ids(rows[0]), PackedRows.of_ids(rows[1]))

    chosen = torch.randperm(40, generator=generator)[:17]
    batch = pairs.take(chosen)

    for place, row in enumerate(chosen.tolist()):
        source, target = rows[0][row], rows[1][row]
        tokens, lengths, previous = batch.inputs
        assert tokens[place].tolist() == source + [PAD] * (tokens.shape[1] - len(source))
        assert int(lengths[place]) == len(source)
        rest = batch.targets.shape[1] - len(target) - 1
        assert previous[place].tolist() == [BEGIN, *target] + [PAD] * rest
        assert batch.targets[place].tolist() == [*target, END] + [NO_TARGET] * rest


def test_order_is_by_source_then_by_target(sides: Sides) -> None:
    pairs = pack(DATA, sides)

    # Lengths: (2, 2), (1, 1), (1, 3), (3, 1).
    assert torch.argsort(pairs.order).tolist() == [1, 2, 0, 3]


def test_tokens_without_an_entry_are_unknown(sides: Sides) -> None:
    pairs = pack(PairData("x", ("az",), (("A Q",),), "0"), sides)

    assert pairs.sources.steps.tolist() == [4, UNKNOWN] and pairs.targets.steps.tolist() == [
        4,
        UNKNOWN,
    ]


def test_a_text_without_tokens_is_named(sides: Sides) -> None:
    blank = Sides(learn_side(["a"], "subwords", maximum=20), sides.target)

    with pytest.raises(DataError, match="x: expected a text with tokens, got '\u2581'"):
        pack(PairData("x", ("\u2581",), (("A",),), "0"), blank)


def test_long_pairs_are_left_out(sides: Sides, recipe: Seq2SeqRecipe) -> None:
    pairs = pack(DATA, sides)

    def bounded(source: int, target: int) -> Seq2SeqRecipe:
        return recipe.model_copy(
            update={
                "source": recipe.source.model_copy(update={"most_tokens": source}),
                "target": recipe.target.model_copy(update={"most_tokens": target}),
            }
        )

    kept = drop_long(pairs, bounded(2, 2))
    assert kept.sources.steps.tolist() == [4, 5, 6] and kept.targets.steps.tolist() == [4, 7, 5]
    assert drop_long(pairs, bounded(3, 3)).sources.steps.tolist() == pairs.sources.steps.tolist()
    with pytest.raises(DataError, match="expected pairs of up to 1 and 1 tokens, got none"):
        drop_long(PackedPairs(PackedRows.of_ids([[4, 5]]), PackedRows.of_ids([[4]])), bounded(1, 1))
