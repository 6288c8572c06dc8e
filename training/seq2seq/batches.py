"""Batches of pairs: packed sources and targets, the padded batches taken from them, and the task.

The sources of a batch are of similar length, and among those the targets.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from weir.training.batching import PackedRows, group_by_length, shortest_first
from weir.training.data.pairs import PairData
from weir.training.data.tokenizer import Side, Sides
from weir.training.data.vocabulary import BEGIN, END, PAD
from weir.training.errors import DataError
from weir.training.loop import Batch, Task
from weir.training.optimization import NO_TARGET, choose_loss
from weir.training.reproducibility import Purpose, generator_for
from weir.training.seq2seq.recipes import Seq2SeqRecipe


@dataclass(frozen=True, slots=True)
class PackedPairs:
    """One split: a source and a target per row, both without BEGIN and END."""

    sources: PackedRows
    targets: PackedRows

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def order(self) -> Tensor:
        """(rows,) int64, a sort key: the length of the source, then that of the target."""
        targets = self.targets.lengths
        return self.sources.lengths * (int(targets.max()) + 1) + targets

    def to(self, device: torch.device) -> "PackedPairs":
        """The same split on a device; lengths stay on the CPU."""
        return PackedPairs(self.sources.to(device), self.targets.to(device))

    def take(self, rows: Tensor, forced: Tensor | None = None) -> Batch:
        """Rows as one padded batch.

        Args:
            rows: (B,) indices, on the CPU.
            forced: (B, U) bool, True where the decoder reads `previous` and not its own last
                output.

        Returns:
            Inputs: tokens (B, T), their lengths (B,) on the CPU, previous (B, U), which is BEGIN
            and then the target, and `forced` if it is given. Targets (B, U): the target and then
            END. U is the length of the longest target plus one.
        """
        tokens = self.sources.take(rows, PAD)  # (B, T)
        ids = self.targets.take(rows, PAD)  # (B, U - 1)
        begin = ids.new_full((len(rows), 1), BEGIN)
        previous = torch.cat([begin, ids], dim=1)  # (B, U)
        columns = torch.arange(previous.shape[1])[None]  # (1, U)
        ends = self.targets.lengths[rows][:, None]  # (B, 1)
        following = torch.cat([ids, begin], dim=1)  # (B, U)
        following = torch.where((columns == ends).to(ids.device), END, following)
        targets = torch.where((columns > ends).to(ids.device), NO_TARGET, following)  # (B, U)
        inputs = (tokens, self.sources.lengths[rows], previous)
        if forced is None:
            return Batch(inputs, targets)
        return Batch((*inputs, forced.to(ids.device)), targets)


def pack(data: PairData, sides: Sides) -> PackedPairs:
    """Pack a split; a source is repeated for each of its targets. Errors as `encode`."""
    sources = encode(data.sources, sides.source, data.name)
    counts = [len(targets) for targets in data.references]
    targets = encode((pair.target for pair in data.pairs()), sides.target, data.name)
    repeated = [row for row, count in zip(sources, counts, strict=True) for _ in range(count)]
    return PackedPairs(PackedRows.of_ids(repeated), PackedRows.of_ids(targets))


def encode(texts: Iterable[str], side: Side, name: str) -> list[list[int]]:
    """The ids of each text of a side; `name` is that of the data set."""
    rows = []
    for text in texts:
        ids = side.encode(text)
        if not ids:
            raise DataError(f"{name}: expected a text with tokens, got {text!r}")
        rows.append(ids)
    return rows


def drop_long(pairs: PackedPairs, recipe: Seq2SeqRecipe) -> PackedPairs:
    """The pairs within the recipe's limits of tokens, for training."""
    is_short = (pairs.sources.lengths <= recipe.source.most_tokens) & (
        pairs.targets.lengths <= recipe.target.most_tokens
    )
    rows = torch.nonzero(is_short).flatten()
    if not len(rows):
        raise DataError(
            f"{recipe.data}: expected pairs of up to {recipe.source.most_tokens} and "
            f"{recipe.target.most_tokens} tokens, got none"
        )
    return PackedPairs(_select(pairs.sources, rows), _select(pairs.targets, rows))


def _select(packed: PackedRows, rows: Tensor) -> PackedRows:
    if len(rows) == len(packed):
        return packed
    parts = torch.split(packed.steps, packed.lengths.tolist())
    return PackedRows.of_ids([parts[row].tolist() for row in rows.tolist()])


def make_task(
    train: PackedPairs, validation: PackedPairs, recipe: Seq2SeqRecipe, *, mixed: bool
) -> Task:
    """The recipe's training task on these pairs."""
    order = train.order
    steps = math.ceil(len(train) / recipe.batch_size)

    def training(epoch: int, first_step: int) -> Iterator[Batch]:
        generator = generator_for(recipe.seed, Purpose.ORDER, epoch)
        batches = group_by_length(order, recipe.batch_size, generator)
        for step, rows in enumerate(batches[first_step:], start=first_step):
            share = recipe.forcing.share((epoch + step / steps) / recipe.epochs)
            forced = None
            if share < 1.0:
                drawn = generator_for(recipe.seed, Purpose.DISTORTION, epoch, step)
                shape = (len(rows), int(train.targets.lengths[rows].max()) + 1)
                forced = torch.rand(shape, generator=drawn) < share
            yield train.take(rows, forced)

    return Task(
        steps=steps,
        training=training,
        validation=lambda: in_order(validation),
        loss=choose_loss(recipe),
        mixed=mixed,
        rows_are="pairs",
        targets_are="tokens",
    )


def in_order(pairs: PackedPairs) -> Iterator[Batch]:
    """Each pair once, the shortest first."""
    for rows in shortest_first(pairs.order):
        yield pairs.take(rows)
