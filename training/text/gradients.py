"""Gradient norms by time lag: how far back each of the three recurrent cells learns.

The gradient of the last state with respect to an earlier state is a product of one matrix per step.
Norms below 1 make it vanish with the distance, norms above 1 make it explode: Y. Bengio, P. Simard,
P. Frasconi, "Learning Long-Term Dependencies with Gradient Descent is Difficult", IEEE Transactions
on Neural Networks 5(2), 1994; R. Pascanu, T. Mikolov, Y. Bengio, ICML 2013.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.figures import save
from weir.training.models.recurrent import Cell, Recurrent, RecurrentLayer
from weir.training.models.sequences import FrameNetwork, WordNetwork
from weir.training.optimization import make_optimizer
from weir.training.recipes import change_recipe
from weir.training.text.batches import make_task
from weir.training.text.experiment import SequenceExperiment, build_network
from weir.training.text.recipes import SequenceRecipe

GRADIENTS = "gradients.png"
CELLS: tuple[Cell, ...] = ("rnn", "gru", "lstm")
STEPS = 300
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The Okabe-Ito palette, distinguishable with colour blindness."""
SMALLEST = 1e-12
"""Smaller norms are drawn as this value: a logarithmic axis has no 0."""
_ROWS = 64

Curves = Mapping[str, NDArray[np.float64]]


def log_gradients(problem: SequenceExperiment, out: Path) -> None:
    """Draw `gradients.png` into a run directory.

    The cells are put into the same unidirectional network and measured on the same rows: with
    initial weights, and after the same number of training steps.
    """
    before: dict[str, NDArray[np.float64]] = {}
    after: dict[str, NDArray[np.float64]] = {}
    for cell in CELLS:
        network = _build(problem, cell)
        before[cell] = _measure(network, problem)
        _train(network, problem)
        after[cell] = _measure(network, problem)
    draw_gradients({"before training": before, f"after {STEPS} steps": after}, out / GRADIENTS)


def norms_by_lag(
    encoder: Recurrent, sequence: Tensor, lengths: Tensor, *, seed: int = 0
) -> NDArray[np.float64]:
    """The norm of ∂(p · last state) / ∂(state `lag` steps before), averaged over rows.

    p is a random direction of length 1, so with one layer lag 0 gives 1. A state is all that a step
    hands to the next: the hidden states of all layers, and the memories of an LSTM. Dropout is off,
    and `truncate_steps` is ignored.

    Args:
        encoder: unidirectional, else `ModelError`; it is not changed.
        seed: of the direction.

    Returns:
        (L,), for lag 0 to L - 1, where L is the greatest length.
    """
    layers = list(encoder.stack())
    if layers[0].directions != 1:
        raise ModelError("gradients by lag are for one direction, got a bidirectional network")
    # cuDNN has no backward pass outside training mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        states = _states_by_step(layers, sequence[:, : int(lengths.max())])
        hidden = torch.stack([step[-1][0] for step in states], dim=1)  # (B, L, H), the top layer's
        last = hidden[torch.arange(len(lengths)), lengths - 1]  # (B, H)
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(last.shape[1], generator=generator).to(last)
        # Rows are independent, so one backward pass serves all of them.
        summed = (last @ (direction / direction.norm())).sum()
        flat = [part for step in states for layer in step for part in layer]
        gradients = torch.autograd.grad(summed, flat, materialize_grads=True)
    by_part = torch.stack(gradients).square().sum(dim=2)  # (L·parts, B)
    norms = by_part.reshape(len(states), -1, len(lengths)).sum(dim=1).sqrt().T  # (B, L)
    return _mean_by_lag(norms.double().cpu().numpy(), lengths.cpu().numpy())


def draw_gradients(panels: Mapping[str, Curves], path: Path) -> None:
    """Draw norms by lag: one panel per title, in it one line per network."""
    figure = Figure(figsize=(5.0 * len(panels), 4.2), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        for number, (name, norms) in enumerate(curves.items()):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(np.maximum(norms, SMALLEST), color=colour, label=name)
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("steps before the last")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
    row[0].set_ylabel("gradient norm (mean over the rows)")
    save(figure, path)


def _build(problem: SequenceExperiment, cell: Cell) -> nn.Module:
    encoder = {"cell": cell, "bidirectional": False, "truncate_steps": None, "dropout": 0.0}
    recipe = change_recipe(problem.recipe, encoder=encoder)
    if not isinstance(recipe, SequenceRecipe):
        raise TypeError(recipe)
    torch.manual_seed(recipe.seed)
    return build_network(recipe, problem.record, len(problem.classes))


def _train(network: nn.Module, problem: SequenceExperiment) -> None:
    """Train for `STEPS` steps at the recipe's highest learning rate."""
    recipe = problem.recipe
    task = make_task(problem.train, problem.validation, recipe, len(problem.classes), mixed=False)
    optimizer = make_optimizer(network, recipe.optimizer)
    network.train()
    for step in range(STEPS):
        epoch, first = divmod(step, task.steps)
        (batch,) = islice(task.training(epoch, first), 1)
        optimizer.zero_grad()
        task.loss(network(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()


def _measure(network: nn.Module, problem: SequenceExperiment) -> NDArray[np.float64]:
    """Norms by lag over the longest rows of the validation set."""
    lengths = problem.validation.lengths
    longest = torch.argsort(lengths, descending=True, stable=True)[:_ROWS]
    batch = problem.validation.take(longest)
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


def _states_by_step(
    layers: list[RecurrentLayer], sequence: Tensor
) -> list[list[tuple[Tensor, ...]]]:
    """By step and layer, from the bottom up, the state handed on: h, or h and c; (B, H) each."""
    states: list[list[tuple[Tensor, ...]]] = []
    for inputs in sequence.unbind(dim=1):
        before = states[-1] if states else [()] * len(layers)
        states.append([])
        x = inputs  # (B, F)
        for layer, state in zip(layers, before, strict=True):
            states[-1].append(layer.step(x, state))
            x = states[-1][-1][0]  # (B, H)
    return states


def _mean_by_lag(norms: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """(L,), from norms (B, L) by step; the lag counts back from each row's own end."""
    lags = lengths[:, None] - 1 - np.arange(norms.shape[1])  # (B, L)
    real = lags >= 0
    totals = np.bincount(lags[real], weights=norms[real])
    return totals / np.bincount(lags[real])
