"""Which pairs share a batch: sources of like length, and among those targets of like length."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from weir.training.loop import Batch, Task
from weir.training.optimization import Loss
from weir.training.reproducibility import Purpose, generator_for
from weir.training.seq2seq.packed import Pairs, Strip, take
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.text.batches import EVALUATION_ROWS, group


class SourceBatch(NamedTuple):
    """Sources to be answered: which rows they are (B,), tokens (B, T), lengths (B,)."""

    rows: Tensor
    tokens: Tensor
    lengths: Tensor


def make_task(
    train: Pairs, validation: Pairs, recipe: Seq2SeqRecipe, loss: Loss, *, mixed: bool
) -> Task:
    """The recipe's task on these pairs."""
    order = train.order
    steps = math.ceil(len(train) / recipe.batch_size)

    def training(epoch: int, first_step: int) -> Iterator[Batch]:
        generator = generator_for(recipe.seed, Purpose.ORDER, epoch)
        batches = group(order, recipe.batch_size, generator)
        for step, rows in enumerate(batches[first_step:], start=first_step):
            share = recipe.forcing.share((epoch + step / steps) / recipe.epochs)
            forced = None
            if share < 1.0:
                drawn = generator_for(recipe.seed, Purpose.DISTORTION, epoch, step)
                shape = (len(rows), int(train.targets.lengths[rows].max()) + 1)
                forced = torch.rand(shape, generator=drawn) < share
            yield take(train, rows, forced)

    return Task(
        steps=steps,
        training=training,
        validation=lambda: in_order(validation),
        loss=loss,
        mixed=mixed,
        rows_are="pairs",
        targets_are="tokens",
    )


def in_order(pairs: Pairs) -> Iterator[Batch]:
    """Each pair once, the shortest first."""
    for rows in torch.split(torch.argsort(pairs.order, stable=True), EVALUATION_ROWS):
        yield take(pairs, rows)


def sources_in_order(sources: Strip, batch_size: int = EVALUATION_ROWS) -> Iterator[SourceBatch]:
    """Each source once, the shortest first, to be answered without its target."""
    for rows in torch.split(torch.argsort(sources.lengths, stable=True), batch_size):
        yield SourceBatch(rows, sources.take(rows, 0), sources.lengths[rows])
