"""A trained image network as it is served: pictures as they are in, probabilities out."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weir.bundle.sharing import Sharing
from weir.training.weight_sharing import count_sharing

INPUT = "image"
LOGITS, PROBABILITIES = "logits", "probabilities"


class ImageOutputs(NamedTuple):
    """logits (B, classes) as the network gives them, and their softmax."""

    logits: Tensor
    probabilities: Tensor


def sharing_of(network: nn.Module, channels: int, height: int, width: int) -> Sharing:
    """Parameters and connections of a network of pictures, before anything is folded.

    Raises:
        ModelError: it is not known how one of its layers connects.
    """
    layers = count_sharing(network, (channels, height, width))
    return Sharing(
        parameters=sum(layer.parameters for layer in layers),
        connections=sum(layer.connections for layer in layers),
    )


class ImageNetwork(nn.Module):
    """Puts normalisation into the graph, so that no client can get it wrong.

    Args:
        network: takes float32 (B, C, H, W), normalised; returns logits (B, classes).
        mean, std: of each channel, on the scale 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, image: Tensor) -> ImageOutputs:
        """Classify pictures: image uint8 (B, H, W, C)."""
        normalised = (image.to(torch.float32) / 255 - self.mean) / self.std
        logits = self.network(normalised.permute(0, 3, 1, 2))  # (B, classes)
        return ImageOutputs(logits=logits, probabilities=torch.softmax(logits, dim=-1))
