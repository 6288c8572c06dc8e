"""Multiply-adds of image networks: the usual cost of a network in papers.

They are the uses of weights, without biases, in convolutions and fully connected layers.
"""

import functools

import torch
from torch import Tensor, nn


def count_multiply_adds(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Count the multiply-adds of one row (C, H, W) by layer, in the order of the layers."""
    counts: dict[str, int] = {}

    def count(name: str, layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            counts[name] = output[0].numel() * layer.weight[0].numel()

    handles = [
        layer.register_forward_hook(functools.partial(count, name))
        for name, layer in network.named_modules()
    ]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return counts
