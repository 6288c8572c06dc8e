"""What the Inception networks share: their convolution, and the input their published weights expect."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Convolution(nn.Module):
    """Convolution, a bias or batch normalisation, ReLU; named as in torchvision's weights."""

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
    """Pictures normalised by ImageNet's mean and deviation, normalised to (x - 0.5) / 0.5 instead.

    (B, 3, H, W) to the same. The Inception weights in torchvision's layout were trained on the latter.
    """
    mean = image.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = image.new_tensor(IMAGENET_STD)[:, None, None]
    return (image * std + mean - 0.5) / 0.5


class WithAuxiliary(NamedTuple):
    """What a network with auxiliary classifiers returns in training: logits (B, classes) of each."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]


def drop_auxiliary_weights(
    network: nn.Module, state: dict[str, Tensor], _prefix: str, *_others: object
) -> None:
    """A load_state_dict pre-hook: weights of auxiliary classifiers the network does not have are no error."""
    heads = {name for name, _ in network.named_children() if name.lower().startswith("aux")}
    for name in list(state):
        head = name.partition(".")[0]
        if head.lower().startswith("aux") and head not in heads:
            del state[name]
