"""Inception v1 (GoogLeNet): blocks with convolutions of several sizes side by side.

C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015 (arXiv:1409.4842), table 1 and figure
3. Layers are named as in torchvision's weights, so one class serves both forms of the network.
Batch normalisation came later: S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.training.models import layers
from weir.training.models.layers import (
    Convolution,
    WithAuxiliary,
    drop_auxiliary_weights,
    from_imagenet,
)

SMALL_SIDES = range(24, 65)
"""Sides of pictures for which the network is built in its small form, in pixels."""


class BlockWidths(NamedTuple):
    """One row of table 1: the feature maps of each convolution in a block."""

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pooled: int


TABLE_1 = {
    "3a": BlockWidths(64, 96, 128, 16, 32, 32),
    "3b": BlockWidths(128, 128, 192, 32, 96, 64),
    "4a": BlockWidths(192, 96, 208, 16, 48, 64),
    "4b": BlockWidths(160, 112, 224, 24, 64, 64),
    "4c": BlockWidths(128, 128, 256, 24, 64, 64),
    "4d": BlockWidths(112, 144, 288, 32, 64, 64),
    "4e": BlockWidths(256, 160, 320, 32, 128, 128),
    "5a": BlockWidths(256, 160, 320, 32, 128, 128),
    "5b": BlockWidths(384, 192, 384, 48, 128, 128),
}


class InceptionV1(nn.Module):
    """Inception v1: 6,998,552 parameters as published, without its auxiliary classifiers.

    Takes normalised float32 pictures (B, C, H, W). Returns logits (B, classes); in training mode
    with auxiliary classifiers, `WithAuxiliary`.

    Args:
        height, width: 224, or 24 to 64 for the small form.
        auxiliary: with the two auxiliary classifiers of section 5.
        batch_norm: in place of biases and of the stem's response normalisation. None: small form
            only.
        as_torchvision: with the layout of torchvision's GoogLeNet weights. Deviations: 3 x 3 in
            place of the paper's 5 x 5, 2 x 2 in place of 3 x 3 in the last pooling, and half the
            dropout.
        transform_input: renormalise pictures from ImageNet's mean and deviation to (x - 0.5) / 0.5,
            which the weights expect.

    Deviation: the small form has half of table 1's feature maps, a stem of 3 x 3 in place of
    7 x 7 / 2 without its second pooling, and half the dropout. The full form divides a side by 32.
    """

    def __init__(
        self,
        *,
        classes: int = 1000,
        height: int = 224,
        width: int = 224,
        channels: int = 3,
        auxiliary: bool = False,
        batch_norm: bool | None = None,
        as_torchvision: bool = False,
        transform_input: bool = False,
    ) -> None:
        super().__init__()
        is_small = layers.is_small("inception v1", (height, width), SMALL_SIDES, 224)
        norm = is_small if batch_norm is None else batch_norm
        share = 2 if is_small else 1
        self.transform_input = transform_input
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.stem_pool = nn.Identity() if is_small else self.pool
        self.last_pool = nn.MaxPool2d(2, ceil_mode=True) if as_torchvision else self.pool
        # Figure 3 normalises responses twice in the stem; the constants are AlexNet's.
        self.normalise = (
            nn.Identity() if norm else nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        )
        stem = (3, 1, 1) if is_small else (7, 2, 3)
        kernel, stride, padding = stem
        convolution = functools.partial(Convolution, batch_norm=norm)
        self.conv1 = convolution(channels, 64 // share, kernel, stride=stride, padding=padding)
        self.conv2 = convolution(64 // share, 64 // share, 1)
        self.conv3 = convolution(64 // share, 192 // share, 3, padding=1)

        def block(name: str, inputs: int) -> InceptionBlock:
            widths = BlockWidths(*(maps // share for maps in TABLE_1[name]))
            last_kernel = 3 if as_torchvision else 5
            return InceptionBlock(inputs // share, widths, batch_norm=norm, last_kernel=last_kernel)

        self.inception3a = block("3a", 192)
        self.inception3b = block("3b", 256)
        self.inception4a = block("4a", 480)
        self.inception4b = block("4b", 512)
        self.inception4c = block("4c", 512)
        self.inception4d = block("4d", 512)
        self.inception4e = block("4e", 528)
        self.inception5a = block("5a", 832)
        self.inception5b = block("5b", 832)
        self.aux1: AuxiliaryClassifierV1 | None = None
        self.aux2: AuxiliaryClassifierV1 | None = None
        if auxiliary:
            is_published = not (is_small or as_torchvision)
            head = functools.partial(
                AuxiliaryClassifierV1, classes=classes, batch_norm=norm, is_published=is_published
            )
            self.aux1, self.aux2 = head(512 // share), head(528 // share)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2 if is_small or as_torchvision else 0.4)
        self.fc = nn.Linear(1024 // share, classes)
        self.register_load_state_dict_pre_hook(drop_auxiliary_weights)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits of normalised pictures (B, C, H, W); shapes for 224 x 224."""
        x = from_imagenet(image) if self.transform_input else image
        x = self.normalise(self.pool(self.conv1(x)))  # (B, 64, 56, 56)
        x = self.normalise(self.conv3(self.conv2(x)))  # (B, 192, 56, 56)
        x = self.inception3a(self.stem_pool(x))  # (B, 256, 28, 28)
        x = self.inception3b(x)  # (B, 480, 28, 28)
        middle = self.inception4a(self.pool(x))  # (B, 512, 14, 14)
        x = self.inception4c(self.inception4b(middle))  # (B, 512, 14, 14)
        late = self.inception4d(x)  # (B, 528, 14, 14)
        x = self.inception4e(late)  # (B, 832, 14, 14)
        x = self.inception5b(self.inception5a(self.last_pool(x)))  # (B, 1024, 7, 7)
        x = self.dropout(self.avgpool(x).flatten(1))  # (B, 1024)
        logits: Tensor = self.fc(x)  # (B, classes)
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return WithAuxiliary(logits, (self.aux1(middle), self.aux2(late)))
        return logits


class InceptionBlock(nn.Module):
    """Figure 2b: 1 x 1, 3 x 3, 5 x 5 and pooling side by side, with 1 x 1 reductions."""

    def __init__(
        self, inputs: int, widths: BlockWidths, *, batch_norm: bool, last_kernel: int
    ) -> None:
        super().__init__()
        convolution = functools.partial(Convolution, batch_norm=batch_norm)
        self.branch1 = convolution(inputs, widths.one, 1)
        self.branch2 = nn.Sequential(
            convolution(inputs, widths.reduce3, 1),
            convolution(widths.reduce3, widths.three, 3, padding=1),
        )
        self.branch3 = nn.Sequential(
            convolution(inputs, widths.reduce5, 1),
            convolution(widths.reduce5, widths.five, last_kernel, padding=last_kernel // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), convolution(inputs, widths.pooled, 1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, one + three + five + pooled, H, W)."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(maps) for branch in branches], dim=1)


class AuxiliaryClassifierV1(nn.Module):
    """Section 5: a small network on the output of 4a or 4d, in training only.

    Deviation, except in the published form: adaptive pooling makes feature maps of any size 4 x 4.
    """

    def __init__(self, inputs: int, *, classes: int, batch_norm: bool, is_published: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3) if is_published else nn.AdaptiveAvgPool2d(4)
        self.conv = Convolution(inputs, 128, 1, batch_norm=batch_norm)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (B, classes) of maps (B, inputs, H, W)."""
        x = self.conv(self.pool(maps)).flatten(1)  # (B, 2048)
        logits: Tensor = self.fc2(self.dropout(functional.relu(self.fc1(x))))  # (B, classes)
        return logits
