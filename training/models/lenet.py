"""LeNet-5: as published in 1998, and in its common form today.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998, section II.B. Layer names are the paper's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.training.errors import ModelError

C3_INPUTS = (
    # Table I: for each of the 16 maps of C3, its input maps of S2.
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (4, 5, 0),
    (5, 0, 1),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (3, 4, 5, 0),
    (4, 5, 0, 1),
    (5, 0, 1, 2),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (2, 3, 5, 0),
    (0, 1, 2, 3, 4, 5),
)
BACKGROUND = -0.1
"""The value of the background under the 1998 normalisation; ink is 1.175."""

# The fixed output codes: a bitmap of each digit, 7 wide and 12 high. The paper has such bitmaps for
# printable ASCII (figure 3); these were drawn for Weir. Similar digits have similar codes, as in
# the paper: a language model over the outputs can then use the distances.
DIGITS_0_TO_4 = """
..###..  ...#...  .####..  .####..  ....##.
.##.##.  ..##...  ##..##.  ##..##.  ...###.
##...##  .###...  .....##  .....##  ...###.
##...##  ...#...  .....##  .....##  ..#.##.
##...##  ...#...  .....##  ....##.  ..#.##.
##...##  ...#...  ....##.  ..###..  .#..##.
##...##  ...#...  ...##..  ....##.  .#..##.
##...##  ...#...  ..##...  .....##  #######
##...##  ...#...  .##....  .....##  ....##.
##...##  ...#...  ##.....  .....##  ....##.
.##.##.  ...#...  ##.....  ##..##.  ....##.
..###..  .#####.  #######  .####..  ....##.
"""
DIGITS_5_TO_9 = """
#######  ..####.  #######  ..###..  .####..
##.....  .##....  .....##  .##.##.  ##..##.
##.....  ##.....  .....##  ##...##  ##...##
##.....  ##.....  ....##.  ##...##  ##...##
#####..  ##.....  ....##.  .##.##.  ##...##
....##.  #####..  ...##..  ..###..  .##..##
.....##  ##..##.  ...##..  .##.##.  ..#####
.....##  ##...##  ..##...  ##...##  .....##
.....##  ##...##  ..##...  ##...##  .....##
.....##  ##...##  ..##...  ##...##  .....##
##..##.  .##..##  ..##...  .##.##.  ....##.
.####..  ..####.  ..##...  ..###..  .####..
"""


class LeNet5(nn.Module):
    """LeNet-5 in today's form: full C3, max pooling, ReLU, a linear output; 61,706 parameters.

    Takes normalised float32 pictures (B, C, 28, 28), returns logits (B, classes).
    """

    def __init__(
        self, *, classes: int = 10, height: int = 28, width: int = 28, channels: int = 1
    ) -> None:
        super().__init__()
        require_size("lenet5", (height, width), {(28, 28)})
        self.c1 = nn.Conv2d(channels, 6, kernel_size=5, padding=2)
        self.s2 = nn.MaxPool2d(2)
        self.c3 = nn.Conv2d(6, 16, kernel_size=5)
        self.s4 = nn.MaxPool2d(2)
        self.c5 = nn.Linear(16 * 5 * 5, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of normalised pictures (B, C, 28, 28)."""
        x = self.s2(functional.relu(self.c1(image)))  # (B, 6, 14, 14)
        x = self.s4(functional.relu(self.c3(x)))  # (B, 16, 5, 5)
        x = functional.relu(self.c5(x.flatten(1)))  # (B, 120)
        x = functional.relu(self.f6(x))  # (B, 84)
        logits: Tensor = self.output(x)  # (B, classes)
        return logits


class LeNet5Of1998(nn.Module):
    """LeNet-5 as published: 60,000 trainable parameters, 340,908 connections.

    Takes float32 pictures (B, 1, 28, 28) or (B, 1, 32, 32) whose background is -0.1; returns logits
    (B, classes): minus the squared distance of F6 to each class's code.

    Deviation: pictures of 28 x 28 are padded here, not in the data.
    """

    def __init__(
        self, *, classes: int = 10, height: int = 28, width: int = 28, channels: int = 1
    ) -> None:
        super().__init__()
        require_size("lenet5-1998", (height, width), {(28, 28), (32, 32)})
        if channels != 1:
            raise ModelError(
                f"lenet5-1998: expected grey pictures (1 channel), got {channels} channels"
            )
        self.margin = (32 - height) // 2
        self.c1 = nn.Conv2d(1, 6, kernel_size=5)
        self.s2 = TrainableSubsampling(6)
        self.c3 = PartialConvolution(C3_INPUTS, kernel_size=5)
        self.s4 = TrainableSubsampling(16)
        self.c5 = nn.Conv2d(16, 120, kernel_size=5)
        self.f6 = nn.Linear(120, 84)
        self.output = RadialBasis(class_codes(classes))
        self._initialise()

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of pictures (B, 1, 28, 28) or (B, 1, 32, 32)."""
        x = functional.pad(image, (self.margin,) * 4, value=BACKGROUND)  # (B, 1, 32, 32)
        x = squash(self.s2(squash(self.c1(x))))  # (B, 6, 14, 14)
        x = squash(self.s4(squash(self.c3(x))))  # (B, 16, 5, 5)
        x = squash(self.c5(x)).flatten(1)  # (B, 120)
        x = squash(self.f6(x))  # (B, 84)
        logits: Tensor = self.output(x)  # (B, classes)
        return logits

    def _initialise(self) -> None:
        """Uniform within 2.4 over the fan-in (appendix A); subsampling layers start as means."""
        for layer in (self.c1, self.c5, self.f6):
            bound = 2.4 / layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class TrainableSubsampling(nn.Module):
    """S2 and S4: the sum of each 2 x 2 patch, times a coefficient per map, plus a bias.

    (B, C, H, W) to (B, C, H/2, W/2), without the squashing function.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Half of each side: (B, C, H, W) to (B, C, H/2, W/2)."""
        sums = functional.avg_pool2d(maps, 2) * 4.0  # (B, C, H/2, W/2)
        return sums * self.coefficient + self.bias

    def connections(self, output: Tensor) -> int:
        """Four inputs and a bias per output, as in the paper: (2 * 2 + 1) * 14 * 14 * 6 = 5,880."""
        return output[0].numel() * 5


class PartialConvolution(nn.Module):
    """C3: a convolution in which each output map has only some of the input maps (Table I).

    It holds one kernel per connected pair of maps, so it has no unused parameters.
    """

    slots: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel_size: int) -> None:
        super().__init__()
        pairs = [(row, column) for row, columns in enumerate(table) for column in columns]
        slots = torch.full((len(table), 1 + max(map(max, table))), len(pairs))
        for kernel, (row, column) in enumerate(pairs):
            slots[row, column] = kernel
        self.register_buffer("slots", slots, persistent=False)  # (outputs, inputs)
        self.kernels = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(len(table)))
        fan_in = torch.tensor([len(table[row]) for row, _ in pairs]) * kernel_size**2
        with torch.no_grad():
            self.kernels.uniform_(-2.4, 2.4).div_(fan_in[:, None, None])

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H - 4, W - 4) for kernels of 5 x 5."""
        absent = torch.zeros_like(self.kernels[:1])
        weight = torch.cat([self.kernels, absent])[self.slots]  # (outputs, inputs, 5, 5)
        return functional.conv2d(maps, weight, self.bias)

    def connections(self, output: Tensor) -> int:
        """Each parameter is used once at every place: 1,516 * 10 * 10 = 151,600."""
        return (self.kernels.numel() + self.bias.numel()) * output[0, 0].numel()


class RadialBasis(nn.Module):
    """The output: minus the squared distance to each class's fixed code (equation 7, negated)."""

    codes: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)  # (classes, 84)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 84) to (B, classes)."""
        differences = features[:, None, :] - self.codes  # (B, classes, 84)
        return -differences.square().sum(dim=2)

    def connections(self, _output: Tensor) -> int:
        """One per component of a code: 840 for ten classes."""
        return self.codes.numel()


def class_codes(classes: int) -> Tensor:
    """The codes of the first 2 to 10 classes: (classes, 84) of +1 (ink) and -1, row by row."""
    drawn = [picture for sheet in (DIGITS_0_TO_4, DIGITS_5_TO_9) for picture in _cut(sheet)]
    if not 2 <= classes <= len(drawn):
        raise ModelError(f"lenet5-1998 has codes for 2 to {len(drawn)} classes, got {classes}")
    return torch.tensor(
        [[1.0 if pixel == "#" else -1.0 for pixel in picture] for picture in drawn[:classes]]
    )


def _cut(sheet: str) -> list[str]:
    """The bitmaps of one sheet, each as a string of its 84 pixels."""
    rows = [line.split() for line in sheet.strip().splitlines()]
    return ["".join(row[column] for row in rows) for column in range(len(rows[0]))]


def squash(activation: Tensor) -> Tensor:
    """The paper's scaled hyperbolic tangent (appendix A): f(1) = 1 and f(-1) = -1."""
    return 1.7159 * torch.tanh(activation * (2.0 / 3.0))


def require_size(network: str, size: tuple[int, int], allowed: set[tuple[int, int]]) -> None:
    """Require a picture size that the network is defined for."""
    if size not in allowed:
        known = " or ".join(f"{height} x {width}" for height, width in sorted(allowed))
        raise ModelError(f"{network}: expected pictures of {known}, got {size[0]} x {size[1]}")
