"""What training makes small, by name."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from training.recipes import Recipe

RUBBISH_DISTANCE = 20.0
"""The constant j of equation 9: the penalty of the "none of these" class. The paper gives no value."""

Loss = Callable[[Tensor, Tensor], Tensor]


def choose_loss(recipe: Recipe) -> Loss:
    """The recipe's loss: of logits (B, classes) and labels (B,), a mean over the rows."""
    if recipe.loss == "map-1998":
        return map_1998

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)

    return cross_entropy


def map_1998(logits: Tensor, labels: Tensor) -> Tensor:
    """The discriminative criterion of LeCun et al. 1998, equation 9, on minus the squared distances.

    The right class's distance, plus the log of the sum of all classes' exponentials with one more for
    rubbish: that one keeps pulling the right distance down when it is already the smallest.
    """
    rubbish = logits.new_full((len(logits), 1), -RUBBISH_DISTANCE)
    every = torch.cat([logits, rubbish], dim=1)  # (B, classes + 1)
    return functional.cross_entropy(every, labels)
