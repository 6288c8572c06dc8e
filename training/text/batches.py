"""Which rows share a batch: rows of like length, so that little is computed for padding."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from weir.training.loop import Batch, Task
from weir.training.optimization import Loss
from weir.training.reproducibility import Purpose, generator_for
from weir.training.text.packed import Strip, starts_of, take
from weir.training.text.recipe import SequenceRecipe

EVALUATION_ROWS = 256
# Rows are sorted within so many batches: enough that padding is rare, few enough that batches differ.
_POOL = 50


def make_task(
    train: Strip, validation: Strip, recipe: SequenceRecipe, loss: Loss, *, mixed: bool
) -> Task:
    """The recipe's task on these sequences."""
    starts = starts_of(train)
    hidden_share = recipe.tokens.unknown_share if recipe.tokens else 0.0

    def training(epoch: int, first_step: int) -> Iterator[Batch]:
        generator = generator_for(recipe.seed, Purpose.ORDER, epoch)
        batches = group(train.lengths, recipe.batch_size, generator)
        for step, rows in enumerate(batches[first_step:], start=first_step):
            hidden = None
            if hidden_share:
                drawn = generator_for(recipe.seed, Purpose.DISTORTION, epoch, step)
                shape = (len(rows), int(train.lengths[rows].max()))
                hidden = torch.rand(shape, generator=drawn) < hidden_share
            yield take(train, starts, rows, hidden)

    return Task(
        steps=math.ceil(len(train) / recipe.batch_size),
        training=training,
        validation=lambda: in_order(validation),
        loss=loss,
        mixed=mixed,
        rows_are="sentences" if recipe.tokens else "sequences",
        targets_are="tokens" if recipe.task == "tagging" else None,
    )


def group(lengths: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """All rows in batches of rows of like length, in a random order."""
    order = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for pool in torch.split(order, batch_size * _POOL):
        by_length = pool[torch.argsort(lengths[pool], stable=True)]
        batches += torch.split(by_length, batch_size)
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def in_order(strip: Strip) -> Iterator[Batch]:
    """Each row once, the shortest first."""
    starts = starts_of(strip)
    for rows in torch.split(torch.argsort(strip.lengths, stable=True), EVALUATION_ROWS):
        yield take(strip, starts, rows)
