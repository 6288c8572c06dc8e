"""How weights are updated: losses, optimisers, the learning-rate schedule and weight averaging."""

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.training.images.recipes import ImageRecipe
from weir.training.recipe import OptimizerSettings
from weir.training.recipes import AnyRecipe

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From network outputs and targets to a mean over the targets."""

NO_TARGET, UNSEEN = -100, -1
"""Targets without a class: padding, which no measure counts, and a class that the training data
lacks, which counts as an error in every accuracy and is left out of the loss."""

RUBBISH_DISTANCE = 20.0
"""The constant j of equation 9: the penalty of the "none of these" class. The paper gives no
value."""


def choose_loss(recipe: AnyRecipe, weights: Tensor | None = None) -> Loss:
    """Return the recipe's loss of logits (..., classes) and targets (...).

    Args:
        weights: (classes,), see `weigh_classes`; None: all 1.
    """
    if isinstance(recipe, ImageRecipe) and recipe.loss == "map-1998":
        return map_1998
    return functools.partial(cross_entropy, smoothing=recipe.label_smoothing, weights=weights)


def weigh_classes(power: float, targets: Tensor, classes: int) -> Tensor | None:
    """The weight of each class in the loss, (classes,); None if all are 1.

    The mean weight of the training targets is 1, so the loss and the steps keep their size.

    Args:
        power: of 1 / targets of the class, 0 to 1.
        targets: (targets,) of the training rows; negative ones count for no class.
    """
    if not power:
        return None
    counts = torch.bincount(targets[targets >= 0], minlength=classes).float()
    weights = counts.clamp(min=1.0) ** -power
    return weights * counts.sum() / (weights * counts).sum()


def cross_entropy(
    logits: Tensor, targets: Tensor, *, smoothing: float, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy, as a mean over the targets that are classes; 0 if there are none.

    Args:
        logits: (..., classes).
        targets: (...) int64; `NO_TARGET` and `UNSEEN` are ignored.
        smoothing: the share of a target that is spread over all classes.
        weights: (classes,) factors of each class; None: all 1.
    """
    known = torch.where(targets >= 0, targets, NO_TARGET)
    total = functional.cross_entropy(
        logits.flatten(0, -2),
        known.flatten(),
        weight=weights,
        ignore_index=NO_TARGET,
        label_smoothing=smoothing,
        reduction="sum",
    )
    return total / (targets >= 0).sum().clamp(min=1)


def map_1998(logits: Tensor, labels: Tensor) -> Tensor:
    """The MAP criterion of LeCun et al. 1998, equation 9; logits are minus the squared distances.

    It is the right class's distance, plus the log of the sum of all classes' exponentials and that
    of a "rubbish" class. The rubbish class keeps lowering the right distance after it is the
    smallest.
    """
    rubbish = logits.new_full((len(logits), 1), -RUBBISH_DISTANCE)
    every = torch.cat([logits, rubbish], dim=1)  # (B, classes + 1)
    return functional.cross_entropy(every, labels)


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with Nesterov's momentum.

    Weight decay applies to matrices and kernels only. Biases and scales have one axis, or one that
    is longer than 1; decaying them simplifies nothing.
    """
    trained = [tensor for tensor in network.parameters() if tensor.requires_grad]
    groups = [
        {"params": [t for t in trained if _is_matrix(t)], "weight_decay": settings.weight_decay},
        {"params": [t for t in trained if not _is_matrix(t)], "weight_decay": 0.0},
    ]
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0.0,
    )


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and max(tensor.shape) < tensor.numel()


def learning_rate(step: int, *, steps: int, peak: float, warmup_share: float) -> float:
    """Return the learning rate of one step: linear warm-up, then half a cosine (one cycle).

    The rate is above 0 at the first step, `peak` at the end of warm-up and near 0 at the last step.
    """
    warmup = max(int(steps * warmup_share), 1)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup + 1) / (steps - warmup + 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, *, decay: float, step: int) -> None:
    """Update the exponential moving average of a network's weights, after a step.

    B. Polyak, A. Juditsky, 1992, in the form that trained Inception v3: C. Szegedy et al.,
    arXiv:1512.00567, section 8. Statistics of batch normalisation are averaged too; counts are
    copied.

    Args:
        average: a network of the same architecture; changed in place.
        decay: share of itself that the average keeps. Early steps keep less, so that the first
            weights are forgotten.
    """
    kept = min(decay, (1.0 + step) / (10.0 + step))
    averaged, current = average.state_dict(), network.state_dict()
    floating = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    torch._foreach_lerp_(
        [averaged[name] for name in floating], [current[name] for name in floating], 1.0 - kept
    )
    for name in averaged.keys() - set(floating):
        averaged[name].copy_(current[name])
