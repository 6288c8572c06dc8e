"""The published layouts of weights, written out: names and shapes of torchvision's state dicts.

Import it as `from tests.training import layouts`.
"""

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Kernel = tuple[int, int]
Layer = tuple[str, int, int, Kernel | int]


def alexnet() -> Shapes:
    shapes: Shapes = {}
    for name, weight in {
        "features.0": (64, 3, 11, 11),
        "features.3": (192, 64, 5, 5),
        "features.6": (384, 192, 3, 3),
        "features.8": (256, 384, 3, 3),
        "features.10": (256, 256, 3, 3),
        "classifier.1": (4096, 9216),
        "classifier.4": (4096, 4096),
        "classifier.6": (1000, 4096),
    }.items():
        shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
    return shapes


def convolution(name: str, outputs: int, inputs: int, kernel: Kernel | int) -> Shapes:
    """A convolution without a bias and its batch normalisation."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    maps = ("weight", "bias", "running_mean", "running_var")
    return {
        f"{name}.conv.weight": (outputs, inputs, *sides),
        **{f"{name}.bn.{part}": (outputs,) for part in maps},
        f"{name}.bn.num_batches_tracked": (),
    }


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


GOOGLENET_BLOCKS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


def googlenet(*, auxiliary: bool) -> Shapes:
    shapes = convolution("conv1", 64, 3, 7)
    shapes |= convolution("conv2", 64, 64, 1) | convolution("conv3", 192, 64, 3)
    for block, (inputs, one, reduce3, three, reduce5, five, pooled) in GOOGLENET_BLOCKS.items():
        name = f"inception{block}"
        shapes |= convolution(f"{name}.branch1", one, inputs, 1)
        shapes |= convolution(f"{name}.branch2.0", reduce3, inputs, 1)
        shapes |= convolution(f"{name}.branch2.1", three, reduce3, 3)
        shapes |= convolution(f"{name}.branch3.0", reduce5, inputs, 1)
        shapes |= convolution(f"{name}.branch3.1", five, reduce5, 3)
        shapes |= convolution(f"{name}.branch4.1", pooled, inputs, 1)
    for head, inputs in (("aux1", 512), ("aux2", 528)) if auxiliary else ():
        shapes |= convolution(f"{head}.conv", 128, inputs, 1)
        shapes |= linear(f"{head}.fc1", 1024, 2048) | linear(f"{head}.fc2", 1000, 1024)
    return shapes | linear("fc", 1000, 1024)


ACROSS, DOWN = (1, 7), (7, 1)


def inception_v3(*, auxiliary: bool) -> Shapes:
    shapes: Shapes = {}

    def add(block: str, *layers: tuple[str, int, int, Kernel | int]) -> None:
        for name, outputs, inputs, kernel in layers:
            shapes.update(convolution(f"{block}{name}", outputs, inputs, kernel))

    add(
        "Conv2d_",
        ("1a_3x3", 32, 3, 3),
        ("2a_3x3", 32, 32, 3),
        ("2b_3x3", 64, 32, 3),
        ("3b_1x1", 80, 64, 1),
        ("4a_3x3", 192, 80, 3),
    )
    for block, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        add(
            f"Mixed_{block}.branch",
            ("1x1", 64, inputs, 1),
            ("5x5_1", 48, inputs, 1),
            ("5x5_2", 64, 48, 5),
            ("3x3dbl_1", 64, inputs, 1),
            ("3x3dbl_2", 96, 64, 3),
            ("3x3dbl_3", 96, 96, 3),
            ("_pool", pooled, inputs, 1),
        )
    add(
        "Mixed_6a.branch",
        ("3x3", 384, 288, 3),
        ("3x3dbl_1", 64, 288, 1),
        ("3x3dbl_2", 96, 64, 3),
        ("3x3dbl_3", 96, 96, 3),
    )
    for block, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        add(
            f"Mixed_{block}.branch",
            ("1x1", 192, 768, 1),
            ("7x7_1", inner, 768, 1),
            ("7x7_2", inner, inner, ACROSS),
            ("7x7_3", 192, inner, DOWN),
            ("7x7dbl_1", inner, 768, 1),
            ("7x7dbl_2", inner, inner, DOWN),
            ("7x7dbl_3", inner, inner, ACROSS),
            ("7x7dbl_4", inner, inner, DOWN),
            ("7x7dbl_5", 192, inner, ACROSS),
            ("_pool", 192, 768, 1),
        )
    if auxiliary:
        add("AuxLogits.", ("conv0", 128, 768, 1), ("conv1", 768, 128, 5))
        shapes |= linear("AuxLogits.fc", 1000, 768)
    add(
        "Mixed_7a.branch",
        ("3x3_1", 192, 768, 1),
        ("3x3_2", 320, 192, 3),
        ("7x7x3_1", 192, 768, 1),
        ("7x7x3_2", 192, 192, ACROSS),
        ("7x7x3_3", 192, 192, DOWN),
        ("7x7x3_4", 192, 192, 3),
    )
    for block, inputs in (("7b", 1280), ("7c", 2048)):
        add(
            f"Mixed_{block}.branch",
            ("1x1", 320, inputs, 1),
            ("3x3_1", 384, inputs, 1),
            ("3x3_2a", 384, 384, (1, 3)),
            ("3x3_2b", 384, 384, (3, 1)),
            ("3x3dbl_1", 448, inputs, 1),
            ("3x3dbl_2", 384, 448, 3),
            ("3x3dbl_3a", 384, 384, (1, 3)),
            ("3x3dbl_3b", 384, 384, (3, 1)),
            ("_pool", 192, inputs, 1),
        )
    return shapes | linear("fc", 1000, 2048)


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Weights under which activations neither grow nor vanish, and no variance is negative."""
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if not shape:
            return torch.tensor(1)
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            kernel: Tensor = values * (2.0 / values[0].numel()) ** 0.5
            return kernel
        if name.endswith(("running_var", "bn.weight")):
            return 0.5 + values.abs()
        small: Tensor = values * 0.1
        return small

    return {name: draw(name, shape) for name, shape in shapes.items()}
