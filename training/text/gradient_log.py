"""Gradient norms by time lag for the three cells, side by side: how far back each of them can learn.

The cells are put into the same network, of one direction, and measured on the same rows: as they come from
initialisation, and after the same steps of training (Y. Bengio, P. Simard, P. Frasconi, 1994, on why the
simple one forgets).
"""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.training.models.recurrent import Cell, Recurrent
from weir.training.models.sequences import FrameNetwork, WordNetwork
from weir.training.optimization import choose_loss, make_optimizer
from weir.training.recipes import change_recipe
from weir.training.text.batches import make_task
from weir.training.text.experiment import SequenceExperiment
from weir.training.text.gradients import draw_gradients, norms_by_lag
from weir.training.text.network import build_network
from weir.training.text.packed import starts_of, take
from weir.training.text.recipe import SequenceRecipe

GRADIENTS = "gradients.png"
CELLS: tuple[Cell, ...] = ("rnn", "gru", "lstm")
STEPS = 300
_ROWS = 64

Curves = dict[str, NDArray[np.float64]]


def log_gradients(problem: SequenceExperiment, out: Path) -> None:
    """Draw `gradients.png` into a run directory.

    Args:
        problem: whose data and sizes are taken; its own cell does not matter.
        out: the run directory.
    """
    before: Curves = {}
    after: Curves = {}
    for cell in CELLS:
        network = _build(problem, cell)
        before[cell] = _measure(network, problem)
        _train(network, problem)
        after[cell] = _measure(network, problem)
    draw_gradients({"before training": before, f"after {STEPS} steps": after}, out / GRADIENTS)


def _build(problem: SequenceExperiment, cell: Cell) -> nn.Module:
    encoder = {"cell": cell, "bidirectional": False, "truncate_steps": None, "dropout": 0.0}
    recipe = change_recipe(problem.recipe, encoder=encoder)
    if not isinstance(recipe, SequenceRecipe):
        raise TypeError(recipe)
    torch.manual_seed(recipe.seed)
    return build_network(recipe, problem.record, len(problem.classes))


def _train(network: nn.Module, problem: SequenceExperiment) -> None:
    """The first steps of a training, at the recipe's highest rate."""
    recipe = problem.recipe
    loss = choose_loss(recipe)
    task = make_task(problem.train, problem.validation, recipe, loss, mixed=False)
    optimizer = make_optimizer(network, recipe.optimizer)
    network.train()
    for step in range(STEPS):
        epoch, first = divmod(step, task.steps)
        (batch,) = islice(task.training(epoch, first), 1)
        optimizer.zero_grad()
        loss(network(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()


def _measure(network: nn.Module, problem: SequenceExperiment) -> NDArray[np.float64]:
    """Norms by lag over the longest rows of the validation set."""
    strip = problem.validation
    longest = torch.argsort(strip.lengths, descending=True, stable=True)[:_ROWS]
    batch = take(strip, starts_of(strip), longest)
    network.eval()
    if not isinstance(network, WordNetwork | FrameNetwork):
        raise TypeError(network)
    first, lengths, *rest = batch.inputs
    with torch.no_grad():
        vectors: Tensor = network.inputs(first, *rest)  # (B, T, F)
    encoder = network.core.encoder
    if not isinstance(encoder, Recurrent):
        raise TypeError(encoder)
    return norms_by_lag(encoder, vectors, lengths)
