"""Parts of the Inception networks: convolution, input normalisation, auxiliary classifiers.

Auxiliary classifiers compute logits from the middle of a network and exist in training only. A
network that has them returns `WithAuxiliary` in training mode, and its logits alone otherwise. A
network built without them ignores their weights in a state dict, be it a finished run's or one in
torchvision's layout.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from weir.training.errors import ModelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Convolution(nn.Module):
    """Convolution, bias or batch normalisation, ReLU; named as in torchvision's weights."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=not batch_norm)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001) if batch_norm else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        return functional.relu(self.bn(self.conv(maps)))


def from_imagenet(image: Tensor) -> Tensor:
    """Renormalise pictures (B, 3, H, W) from ImageNet's mean and deviation to (x - 0.5) / 0.5."""
    mean = image.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = image.new_tensor(IMAGENET_STD)[:, None, None]
    return (image * std + mean - 0.5) / 0.5


def is_small(network: str, size: tuple[int, int], small_sides: range, large: int) -> bool:
    """Return whether a network has its small form for this size; `ModelError` if it has none."""
    if all(side in small_sides for side in size):
        return True
    if size == (large, large):
        return False
    raise ModelError(
        f"{network}: expected pictures of {large} x {large}, or of {small_sides[0]} to "
        f"{small_sides[-1]} pixels a side, got {size[0]} x {size[1]}"
    )


class WithAuxiliary(NamedTuple):
    """The logits (B, classes) of a network and of its auxiliary classifiers, in training."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]


def drop_auxiliary_weights(
    network: nn.Module, state: dict[str, Tensor], _prefix: str, *_others: object
) -> None:
    """load_state_dict pre-hook: drop weights of auxiliary classifiers that the network lacks."""
    heads = {name for name, _ in network.named_children() if name.lower().startswith("aux")}
    for name in list(state):
        head = name.partition(".")[0]
        if head.lower().startswith("aux") and head not in heads:
            del state[name]
