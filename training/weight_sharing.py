"""Parameters against connections: how much a network shares its weights over space.

A connection is one use of one weight (or bias) for one output unit. LeNet-5 of 1998 makes 340,908
connections with 60,000 free parameters; a network that shares nothing has as many of the one as of the other.

Multiply-adds are what papers give as a network's cost: the uses of the weights, without biases, of its
convolutions and fully connected layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from weir.training.errors import ModelError


@runtime_checkable
class CountsConnections(Protocol):
    """A layer of our own that knows its connections."""

    def connections(self, output: Tensor) -> int:
        """Connections for one row, given an output (1, ...)."""


@dataclass(frozen=True, slots=True)
class LayerCount:
    """One layer: its name and type, the shape of its output for one row, and its counts."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    connections: int


def count_sharing(network: nn.Module, shape: tuple[int, ...]) -> list[LayerCount]:
    """Count every layer that has weights or pools, in the order in which they run.

    Args:
        network: any image network; it is run once, in eval mode, and left as it was.
        shape: of one row, (C, H, W).

    Raises:
        ModelError: a layer has parameters and it is not known how it connects.
    """
    counts: list[LayerCount] = []
    hooks = {
        layer: _counter(name, counts)
        for name, layer in network.named_modules()
        if isinstance(layer, CountsConnections) or not list(layer.children())
    }
    _run_hooked(network, shape, hooks)
    _require_complete(network, counts)
    return counts


def count_multiply_adds(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-adds of one row by layer, in the order in which the layers run.

    Args:
        network: of plain convolutions and fully connected layers; left as it was.
        shape: of one row, (C, H, W).
    """
    counts: dict[str, int] = {}

    def counter(name: str) -> "_Hook":
        def hook(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                counts[name] = output[0].numel() * layer.weight[0].numel()

        return hook

    _run_hooked(network, shape, {layer: counter(name) for name, layer in network.named_modules()})
    return counts


def _run_hooked(
    network: nn.Module, shape: tuple[int, ...], hooks: Mapping[nn.Module, "_Hook"]
) -> None:
    """Run one row of zeros, in eval mode, and leave the network as it was."""
    handles = [layer.register_forward_hook(hook) for layer, hook in hooks.items()]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()


def _counter(name: str, counts: list[LayerCount]) -> "_Hook":
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        connections = _connections(layer, inputs[0], output)
        parameters = free_parameters(layer)
        if connections or parameters:
            kind = type(layer).__name__
            counts.append(LayerCount(name, kind, tuple(output.shape[1:]), parameters, connections))

    return hook


class _Hook(Protocol):
    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, /) -> None: ...


def free_parameters(module: nn.Module) -> int:
    """Numbers that training may change."""
    return sum(tensor.numel() for tensor in module.parameters() if tensor.requires_grad)


def _connections(layer: nn.Module, source: Tensor, output: Tensor) -> int:
    """Connections of one layer for one row; 0 for a layer that connects nothing, such as an activation."""
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


def _require_complete(network: nn.Module, counts: list[LayerCount]) -> None:
    counted = sum(layer.parameters for layer in counts)
    total = free_parameters(network)
    if counted != total:
        raise ModelError(f"{type(network).__name__}: {counted} of {total} parameters are in layers")
