"""Batches of rows of similar length, so that little is computed for padding."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from weir.training.loop import Batch, Task
from weir.training.optimization import Loss
from weir.training.reproducibility import Purpose, generator_for
from weir.training.text.packed import Sequences
from weir.training.text.recipes import SequenceRecipe

EVALUATION_ROWS = 256
# Rows are sorted within pools of this many batches: enough to make padding rare, few enough that
# batches differ between epochs.
_POOL = 50


def make_task(
    train: Sequences, validation: Sequences, recipe: SequenceRecipe, loss: Loss, *, mixed: bool
) -> Task:
    """The recipe's training task on these sequences."""
    hidden_share = recipe.tokens.unknown_share if recipe.tokens else 0.0

    def training(epoch: int, first_step: int) -> Iterator[Batch]:
        generator = generator_for(recipe.seed, Purpose.ORDER, epoch)
        batches = group_by_length(train.lengths, recipe.batch_size, generator)
        for step, rows in enumerate(batches[first_step:], start=first_step):
            hidden = None
            if hidden_share:
                drawn = generator_for(recipe.seed, Purpose.DISTORTION, epoch, step)
                shape = (len(rows), int(train.lengths[rows].max()))
                hidden = torch.rand(shape, generator=drawn) < hidden_share
            yield train.take(rows, hidden)

    return Task(
        steps=math.ceil(len(train) / recipe.batch_size),
        training=training,
        validation=lambda: in_order(validation),
        loss=loss,
        mixed=mixed,
        rows_are="sentences" if recipe.tokens else "sequences",
        targets_are="tokens" if recipe.task == "tagging" else None,
    )


def group_by_length(lengths: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """All rows in batches of rows of similar length, in random order."""
    order = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for pool in torch.split(order, batch_size * _POOL):
        by_length = pool[torch.argsort(lengths[pool], stable=True)]
        batches += torch.split(by_length, batch_size)
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def shortest_first(lengths: Tensor, batch_size: int = EVALUATION_ROWS) -> Iterator[Tensor]:
    """All rows once, the shortest first, in batches of row indices (B,)."""
    yield from torch.split(torch.argsort(lengths, stable=True), batch_size)


def in_order(sequences: Sequences) -> Iterator[Batch]:
    """Each row once, the shortest first."""
    for rows in shortest_first(sequences.lengths):
        yield sequences.take(rows)
