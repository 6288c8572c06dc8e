"""The optimisers a recipe may ask for."""

import torch
from torch import nn

from weir.training.recipe import OptimizerSettings


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum.

    Weight decay is for matrices and kernels: pulling a bias or a scale to 0 makes nothing simpler.
    Biases and scales have one axis, or one that is longer than 1.
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


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.ndim > 1 and max(tensor.shape) < tensor.numel()
