"""Registry of image networks: `build` makes one by name, for given classes and pictures."""

import functools
from collections.abc import Callable

from torch import nn

from weir.training.errors import ModelError
from weir.training.models.alexnet import AlexNet, AlexNetOf2012
from weir.training.models.inception import InceptionV1
from weir.training.models.inception_v3 import InceptionV3
from weir.training.models.lenet import LeNet5, LeNet5Of1998

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5-1998": LeNet5Of1998,
    "alexnet": AlexNet,
    "alexnet-2012": AlexNetOf2012,
    "inception-v1": InceptionV1,
    "inception-v1-bn": functools.partial(InceptionV1, batch_norm=True),
    "googlenet": functools.partial(InceptionV1, batch_norm=True, as_torchvision=True),
    "inception-v3": InceptionV3,
}
WITH_AUXILIARY = frozenset({"inception-v1", "inception-v1-bn", "googlenet", "inception-v3"})
"""The networks that have auxiliary classifiers in training."""


def build(
    architecture: str,
    *,
    classes: int,
    height: int,
    width: int,
    channels: int,
    auxiliary: bool = False,
) -> nn.Module:
    """Build a network, drawn from torch's global generator; `ModelError` if settings clash.

    Args:
        auxiliary: with auxiliary classifiers if the network has them. In training mode it then
            returns `weir.training.models.layers.WithAuxiliary`.
    """
    if architecture not in MODELS:
        raise ModelError(f"unknown network {architecture!r}; there are {', '.join(sorted(MODELS))}")
    heads = {"auxiliary": True} if auxiliary and architecture in WITH_AUXILIARY else {}
    return MODELS[architecture](
        classes=classes, height=height, width=width, channels=channels, **heads
    )
