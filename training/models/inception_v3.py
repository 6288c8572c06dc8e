"""Inception v3: convolutions factorised into smaller and asymmetric ones.

C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016
(arXiv:1512.00567), table 1 and figures 5 to 7 and 10. Names, and details that the paper leaves
open, are those of torchvision's weights; every convolution is batch-normalised.
"""

import torch
from torch import Tensor, nn

from weir.training.models import layers
from weir.training.models.layers import (
    Convolution,
    WithAuxiliary,
    drop_auxiliary_weights,
    from_imagenet,
)

SMALL_SIDES = range(32, 65)
"""Sides of pictures for which the network is built in its small form, in pixels."""


class InceptionV3(nn.Module):
    """Inception v3: 23,834,568 parameters for 1,000 classes, without its auxiliary classifier.

    Takes normalised float32 pictures (B, C, H, W). Returns logits (B, classes); in training mode
    with the auxiliary classifier, `WithAuxiliary`.

    Args:
        height, width: 299, or 32 to 64 for the small form.
        auxiliary: with the auxiliary classifier of section 4.
        transform_input: renormalise pictures from ImageNet's mean and deviation to (x - 0.5) / 0.5,
            which the weights expect.

    Deviations, as in torchvision: the second pooling of table 1's stem comes one convolution later,
    and the first of three blocks at 35 x 35 is narrower. The small form keeps all widths; its stem
    halves the picture once, not three times.
    """

    def __init__(
        self,
        *,
        classes: int = 1000,
        height: int = 299,
        width: int = 299,
        channels: int = 3,
        auxiliary: bool = False,
        transform_input: bool = False,
    ) -> None:
        super().__init__()
        is_small = layers.is_small("inception v3", (height, width), SMALL_SIDES, 299)
        padding = 1 if is_small else 0
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = Convolution(
            channels, 32, 3, stride=1 if is_small else 2, padding=padding
        )
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padding=padding)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padding=padding)
        self.maxpool2 = nn.Identity() if is_small else nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = BlockA(192, pooled=32)
        self.Mixed_5c = BlockA(256, pooled=64)
        self.Mixed_5d = BlockA(288, pooled=64)
        self.Mixed_6a = ReductionB(288)
        self.Mixed_6b = BlockC(768, inner=128)
        self.Mixed_6c = BlockC(768, inner=160)
        self.Mixed_6d = BlockC(768, inner=160)
        self.Mixed_6e = BlockC(768, inner=192)
        self.AuxLogits = AuxiliaryClassifierV3(classes, is_small=is_small) if auxiliary else None
        self.Mixed_7a = ReductionD(768)
        self.Mixed_7b = BlockE(1280)
        self.Mixed_7c = BlockE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, classes)
        self.register_load_state_dict_pre_hook(drop_auxiliary_weights)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits of normalised pictures (B, C, H, W); shapes for 299 x 299."""
        x = from_imagenet(image) if self.transform_input else image
        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))  # (B, 32, 147, 147)
        x = self.maxpool1(self.Conv2d_2b_3x3(x))  # (B, 64, 73, 73)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = self.Mixed_5b(self.maxpool2(x))  # (B, 256, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(x))  # (B, 288, 35, 35)
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))  # (B, 768, 17, 17)
        middle = self.Mixed_6e(self.Mixed_6d(x))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle)))  # (B, 2048, 8, 8)
        x = self.dropout(self.avgpool(x).flatten(1))  # (B, 2048)
        logits: Tensor = self.fc(x)  # (B, classes)
        if self.training and self.AuxLogits is not None:
            return WithAuxiliary(logits, (self.AuxLogits(middle),))
        return logits


class BlockA(nn.Module):
    """Figure 5: the 5 x 5 branch beside one of two 3 x 3, at 35 x 35."""

    def __init__(self, inputs: int, *, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64, 1)
        self.branch5x5_1 = Convolution(inputs, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = Convolution(inputs, pooled, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 224 + pooled, H, W)."""
        five = self.branch5x5_2(self.branch5x5_1(maps))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat(
            [self.branch1x1(maps), five, double, self.branch_pool(self.pool(maps))], dim=1
        )


class ReductionB(nn.Module):
    """Figure 10: two strided branches and a pooling, from 35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 480 + inputs, H', W'), H' being (H - 1) // 2."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat([self.branch3x3(maps), double, self.pool(maps)], dim=1)


class BlockC(nn.Module):
    """Figure 6: 7 x 7 as 1 x 7 and 7 x 1, once and twice, at 17 x 17."""

    def __init__(self, inputs: int, *, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(inputs, 192, 1)
        self.branch7x7_1 = Convolution(inputs, inner, 1)
        self.branch7x7_2 = _across(inner, inner)
        self.branch7x7_3 = _down(inner, 192)
        self.branch7x7dbl_1 = Convolution(inputs, inner, 1)
        self.branch7x7dbl_2 = _down(inner, inner)
        self.branch7x7dbl_3 = _across(inner, inner)
        self.branch7x7dbl_4 = _down(inner, inner)
        self.branch7x7dbl_5 = _across(inner, 192)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = Convolution(inputs, 192, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 768, H, W)."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(maps)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(maps)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat(
            [self.branch1x1(maps), seven, double, self.branch_pool(self.pool(maps))], dim=1
        )


class ReductionD(nn.Module):
    """As `ReductionB`, with a 7 x 7 before one stride, from 17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(inputs, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(inputs, 192, 1)
        self.branch7x7x3_2 = _across(192, 192)
        self.branch7x7x3_3 = _down(192, 192)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 512 + inputs, H', W'), H' being (H - 1) // 2."""
        three = self.branch3x3_2(self.branch3x3_1(maps))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(maps)))
        return torch.cat([three, self.branch7x7x3_4(seven), self.pool(maps)], dim=1)


class BlockE(nn.Module):
    """Figure 7: 3 x 3 as 1 x 3 and 3 x 1 side by side, for many maps at 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(inputs, 320, 1)
        self.branch3x3_1 = Convolution(inputs, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Convolution(inputs, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = Convolution(inputs, 192, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 2048, H, W)."""
        three = self.branch3x3_1(maps)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(maps))
        return torch.cat(
            [
                self.branch1x1(maps),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(maps)),
            ],
            dim=1,
        )


class AuxiliaryClassifierV3(nn.Module):
    """Section 4: a small network on the last feature maps at 17 x 17, in training only."""

    def __init__(self, classes: int, *, is_small: bool) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(5) if is_small else nn.AvgPool2d(5, stride=3)
        self.conv0 = Convolution(768, 128, 1)
        self.conv1 = Convolution(128, 768, 5)
        self.fc = nn.Linear(768, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (B, classes) of maps (B, 768, H, W)."""
        x = self.conv1(self.conv0(self.pool(maps))).flatten(1)  # (B, 768)
        logits: Tensor = self.fc(x)  # (B, classes)
        return logits


def _across(inputs: int, outputs: int) -> Convolution:
    return Convolution(inputs, outputs, (1, 7), padding=(0, 3))


def _down(inputs: int, outputs: int) -> Convolution:
    return Convolution(inputs, outputs, (7, 1), padding=(3, 0))
