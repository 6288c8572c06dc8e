"""What training makes small, by name."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from weir.training.images.recipe import PictureRecipe
from weir.training.loop import NO_TARGET
from weir.training.recipes import AnyRecipe

RUBBISH_DISTANCE = 20.0
"""The constant j of equation 9: the penalty of the "none of these" class. The paper gives no value."""

Loss = Callable[[Tensor, Tensor], Tensor]


def choose_loss(recipe: AnyRecipe) -> Loss:
    """The recipe's loss: of logits (..., classes) and targets (...), a mean over the targets."""
    if isinstance(recipe, PictureRecipe) and recipe.loss == "map-1998":
        return map_1998
    return functools.partial(cross_entropy, smoothing=recipe.label_smoothing)


def cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """Mean over the targets that are classes; 0 where none is.

    Args:
        logits: (..., classes).
        targets: (...) int64; `NO_TARGET` and `UNSEEN` are passed over.
        smoothing: the share of a target that is spread over all classes.
    """
    known = torch.where(targets >= 0, targets, NO_TARGET)
    total = functional.cross_entropy(
        logits.flatten(0, -2),
        known.flatten(),
        ignore_index=NO_TARGET,
        label_smoothing=smoothing,
        reduction="sum",
    )
    return total / (targets >= 0).sum().clamp(min=1)


def map_1998(logits: Tensor, labels: Tensor) -> Tensor:
    """The discriminative criterion of LeCun et al. 1998, equation 9, on minus the squared distances.

    The right class's distance, plus the log of the sum of all classes' exponentials with one more for
    rubbish: that one keeps pulling the right distance down when it is already the smallest.
    """
    rubbish = logits.new_full((len(logits), 1), -RUBBISH_DISTANCE)
    every = torch.cat([logits, rubbish], dim=1)  # (B, classes + 1)
    return functional.cross_entropy(every, labels)
