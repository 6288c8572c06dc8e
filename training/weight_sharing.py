"""Weight sharing: counts of parameters and connections by layer.

A connection is one use of one weight or bias for one output unit. LeNet-5 of 1998 has 340,908
connections and 60,000 free parameters; a network without weight sharing has as many of both.
"""

import functools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from weir.training.errors import ModelError


@runtime_checkable
class CountsConnections(Protocol):
    """A layer that counts its own connections."""

    def connections(self, output: Tensor) -> int:
        """Return the connections for one row, from an output (1, ...)."""


@dataclass(frozen=True, slots=True)
class LayerCount:
    """The counts of one layer, and the shape of its output for one row."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    connections: int


def count_sharing(network: nn.Module, shape: tuple[int, ...]) -> list[LayerCount]:
    """Count each layer with weights or pooling, as they run once, in eval mode, on an image."""
    counts: list[LayerCount] = []

    def count(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        connections = _connections(layer, inputs[0], output)
        parameters = free_parameters(layer)
        if connections or parameters:
            kind = type(layer).__name__
            counts.append(LayerCount(name, kind, tuple(output.shape[1:]), parameters, connections))

    handles = [
        layer.register_forward_hook(functools.partial(count, name))
        for name, layer in network.named_modules()
        if isinstance(layer, CountsConnections) or not list(layer.children())
    ]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    counted, total = sum(layer.parameters for layer in counts), free_parameters(network)
    if counted != total:
        raise ModelError(f"{type(network).__name__}: {counted} of {total} parameters are in layers")
    return counts


def free_parameters(module: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(tensor.numel() for tensor in module.parameters() if tensor.requires_grad)


def _connections(layer: nn.Module, source: Tensor, output: Tensor) -> int:
    """Count one layer's connections for one row; 0 for activations and the like."""
    units = output[0].numel()
    if isinstance(layer, CountsConnections):
        return layer.connections(output)
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return units * (layer.weight[0].numel() + int(layer.bias is not None))
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        sides = layer.kernel_size
        height, width = (sides, sides) if isinstance(sides, int) else sides
        return units * height * width
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return source[0].numel()
    if isinstance(layer, nn.BatchNorm2d):
        return units * 2
    if free_parameters(layer):
        raise ModelError(f"{type(layer).__name__}: it is not known how this layer connects")
    return 0
