"""Weight averaging: a second network that follows the trained one and is less noisy than it.

An exponential moving average over the steps (B. Polyak, A. Juditsky, 1992, in the form Inception v3 was
trained with: C. Szegedy et al., arXiv:1512.00567, section 8). It is what is validated and kept.
"""

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, *, decay: float, step: int) -> None:
    """Move the average a little towards the network, after each step.

    Statistics of batch normalisation are averaged as weights are; counts are copied.

    Args:
        average: of the same kind as `network`; changed in place.
        network: as it is after the step.
        decay: what the average keeps of itself. Early it keeps less, or it would remember the first weights.
        step: how many steps have been made before, from 0.
    """
    kept = min(decay, (1.0 + step) / (10.0 + step))
    ours, theirs = average.state_dict(), network.state_dict()
    floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    torch._foreach_lerp_(
        [ours[name] for name in floating], [theirs[name] for name in floating], 1.0 - kept
    )
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])
