"""The networks by name: `build` makes one for given classes and pictures."""

from collections.abc import Callable

from torch import nn

from training.errors import ModelError
from training.models.lenet import LeNet5, LeNet5Of1998

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5-1998": LeNet5Of1998,
}


def build(architecture: str, *, classes: int, height: int, width: int, channels: int) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator.

    Raises:
        ModelError: unknown architecture, or one that does not fit.
    """
    if architecture not in MODELS:
        raise ModelError(f"unknown network {architecture!r}; there are {', '.join(sorted(MODELS))}")
    return MODELS[architecture](classes=classes, height=height, width=width, channels=channels)
