"""AlexNet: as published in 2012, and in the single-tower form of the common pretrained weights.

A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", NIPS 2012, section 3 and figure 2. The single tower: A. Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", arXiv:1404.5997, section 5, with the layout of
torchvision's weights.
"""

import math

from torch import Tensor, nn
from torch.nn import functional

from weir.training.models.layers import is_small
from weir.training.models.lenet import require_size

SMALL_SIDES = range(24, 65)
"""Sides of pictures for which the single tower is built in its small form, in pixels."""
LARGE = 224


class AlexNet(nn.Module):
    """The single tower: 61,100,840 parameters for 1,000 classes and pictures of 224 x 224.

    Takes normalised float32 pictures (B, C, H, W), returns logits (B, classes).

    Deviations from the 2012 paper: one tower with fewer kernels (64, 192, 384, 256, 256), and no
    response normalisation. For pictures of 24 to 64 pixels a side, strides, kernels and widths are
    smaller (see `_small_features`), with batch normalisation.
    """

    def __init__(
        self, *, classes: int = 1000, height: int = 224, width: int = 224, channels: int = 3
    ) -> None:
        super().__init__()
        if is_small("alexnet", (height, width), SMALL_SIDES, LARGE):
            self.features = _small_features(channels)
            self.avgpool: nn.Module = nn.Identity()
            units = 128 * math.ceil(height / 8) * math.ceil(width / 8)
            hidden, dropout = 512, 0.2
        else:
            self.features = _features(channels)
            self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
            units, hidden, dropout = 256 * 6 * 6, 4096, 0.5
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(units, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of normalised pictures (B, C, H, W); shapes for 224 x 224."""
        x = self.avgpool(self.features(image))  # (B, 256, 6, 6)
        logits: Tensor = self.classifier(x.flatten(1))  # (B, classes)
        return logits


def _features(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 64, kernel_size=11, stride=4, padding=2),  # (B, 64, 55, 55)
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # (B, 64, 27, 27)
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # (B, 192, 13, 13)
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # (B, 256, 6, 6)
    )


def _small_features(channels: int) -> nn.Sequential:
    """Five convolutions and three overlapping poolings, to an eighth of a side; shapes for 32 x 32.

    The first kernel is 5 x 5 without stride: 11 x 11 with stride 4 would leave 8 x 8 places.
    """

    def convolve(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *convolve(channels, 32, 5),  # (B, 32, 32, 32)
        nn.MaxPool2d(3, stride=2, padding=1),  # (B, 32, 16, 16)
        *convolve(32, 96, 5),  # (B, 96, 16, 16)
        nn.MaxPool2d(3, stride=2, padding=1),  # (B, 96, 8, 8)
        *convolve(96, 192, 3),
        *convolve(192, 128, 3),
        *convolve(128, 128, 3),  # (B, 128, 8, 8)
        nn.MaxPool2d(3, stride=2, padding=1),  # (B, 128, 4, 4)
    )


class AlexNetOf2012(nn.Module):
    """AlexNet as published: two towers, 60,965,224 parameters.

    Takes normalised float32 pictures (B, 3, 224, 224), returns logits (B, classes). The towers,
    which ran on two GPUs in 2012, are the two groups of conv2, conv4 and conv5; all other layers
    connect them.

    Deviation: conv1 pads by 2; without padding, 224 pixels do not give the 55 x 55 places of figure
        2.
    """

    def __init__(
        self, *, classes: int = 1000, height: int = 224, width: int = 224, channels: int = 3
    ) -> None:
        super().__init__()
        require_size("alexnet-2012", (height, width), {(LARGE, LARGE)})
        self.conv1 = nn.Conv2d(channels, 96, kernel_size=11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=2)
        # Section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75; torch divides its alpha by n.
        self.normalise = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        # Section 3.4: windows of 3 at every 2nd place overlap.
        self.pool = nn.MaxPool2d(3, stride=2)
        self.dropout = nn.Dropout(0.5)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)
        self._initialise()

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of normalised pictures (B, 3, 224, 224)."""
        x = functional.relu(self.conv1(image))  # (B, 96, 55, 55)
        x = self.pool(self.normalise(x))  # (B, 96, 27, 27)
        x = functional.relu(self.conv2(x))  # (B, 256, 27, 27)
        x = self.pool(self.normalise(x))  # (B, 256, 13, 13)
        x = functional.relu(self.conv3(x))  # (B, 384, 13, 13)
        x = functional.relu(self.conv4(x))  # (B, 384, 13, 13)
        x = self.pool(functional.relu(self.conv5(x)))  # (B, 256, 6, 6)
        x = functional.relu(self.fc6(self.dropout(x.flatten(1))))  # (B, 4096)
        x = functional.relu(self.fc7(self.dropout(x)))  # (B, 4096)
        logits: Tensor = self.fc8(x)  # (B, classes)
        return logits

    def _initialise(self) -> None:
        """Section 5: weights with deviation 0.01; biases 1 in conv2, 4, 5 and fc6, 7, else 0."""
        ones = (self.conv2, self.conv4, self.conv5, self.fc6, self.fc7)
        for layer in (self.conv1, self.conv3, self.fc8, *ones):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, float(layer in ones))
