"""Batches of pairs: sources of similar length, and among those targets of similar length."""

import math
from collections.abc import Iterator

import torch

from weir.training.loop import Batch, Task
from weir.training.optimization import Loss
from weir.training.reproducibility import Purpose, generator_for
from weir.training.seq2seq.packed import PackedPairs
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.text.batches import group_by_length, shortest_first


def make_task(
    train: PackedPairs, validation: PackedPairs, recipe: Seq2SeqRecipe, loss: Loss, *, mixed: bool
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
        loss=loss,
        mixed=mixed,
        rows_are="pairs",
        targets_are="tokens",
    )


def in_order(pairs: PackedPairs) -> Iterator[Batch]:
    """Each pair once, the shortest first."""
    for rows in shortest_first(pairs.order):
        yield pairs.take(rows)
