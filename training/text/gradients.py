"""How far back a recurrent network learns: the size of the gradient at each distance from the end.

The gradient of the last state with respect to a state some steps before is a product of one matrix a step.
Norms below 1 make it vanish with the distance, norms above 1 make it explode: Y. Bengio, P. Simard,
P. Frasconi, "Learning Long-Term Dependencies with Gradient Descent is Difficult", IEEE Transactions on Neural
Networks 5(2), 1994; R. Pascanu, T. Mikolov, Y. Bengio, ICML 2013.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from weir.training.errors import ModelError
from weir.training.figures import save
from weir.training.models.recurrent import Recurrent, RecurrentLayer

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The Okabe-Ito palette, which everybody can tell apart."""
SMALLEST = 1e-12
"""Norms below this are drawn as this: a logarithmic axis has no 0."""

Curves = Mapping[str, NDArray[np.float64]]


def norms_by_lag(
    encoder: Recurrent, sequence: Tensor, lengths: Tensor, *, seed: int = 0
) -> NDArray[np.float64]:
    """The norm of ∂(p · last state) / ∂(state `lag` steps before), averaged over the rows that have it.

    p is a random direction of length 1, so of one layer lag 0 gives 1. A state is all that goes from step to
    step: the hidden states of all layers, and the memories of an LSTM. Dropout is off, and `truncate_steps`
    ignored.

    Args:
        encoder: of one direction; left as it is.
        sequence: (B, T, F).
        lengths: (B,).
        seed: of the direction.

    Returns:
        (L,), for lag 0 to L - 1, where L is the greatest length.

    Raises:
        ModelError: the encoder has two directions, so no state has a distance to the last.
    """
    layers = list(encoder.stack())
    if layers[0].directions != 1:
        raise ModelError("gradients by lag are for one direction, got a bidirectional network")
    # cuDNN refuses the backward pass of a network that is not in training.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        states = _states_by_step(layers, sequence[:, : int(lengths.max())])
        hidden = torch.stack([step[-1][0] for step in states], dim=1)  # (B, L, H), the top layer's
        last = hidden[torch.arange(len(lengths)), lengths - 1]  # (B, H)
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(last.shape[1], generator=generator).to(last)
        summed = (last @ (direction / direction.norm())).sum()  # rows do not meet: one pass for all
        flat = [part for step in states for layer in step for part in layer]
        gradients = torch.autograd.grad(summed, flat, materialize_grads=True)
    by_part = torch.stack(gradients).square().sum(dim=2)  # (L·parts, B)
    norms = by_part.reshape(len(states), -1, len(lengths)).sum(dim=1).sqrt().T  # (B, L)
    return _mean_by_lag(norms.double().cpu().numpy(), lengths.cpu().numpy())


def draw_gradients(panels: Mapping[str, Curves], path: Path) -> None:
    """Write a picture of norms by lag: a panel for each title, in it a line for each network."""
    figure = Figure(figsize=(5.0 * len(panels), 4.2), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        _draw_panel(axes, title, curves)
    row[0].set_ylabel("gradient norm (mean over the rows)")
    save(figure, path)


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
    """(L,), from norms (B, L) by step: each row is counted back from its own end."""
    lags = lengths[:, None] - 1 - np.arange(norms.shape[1])  # (B, L)
    real = lags >= 0
    totals = np.bincount(lags[real], weights=norms[real])
    return totals / np.bincount(lags[real])


def _draw_panel(axes: Axes, title: str, curves: Curves) -> None:
    for number, (name, norms) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(np.maximum(norms, SMALLEST), color=colour, label=name)
    axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel("steps before the last")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
