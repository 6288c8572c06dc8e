"""The tensors of torchvision's published weights, name by name: an oracle that knows none of our networks.

Written out from the layout of `alexnet-owt`, `googlenet` and `inception_v3_google`, auxiliary classifiers
included. Each function gives the shapes by name, in the order of the file.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

# Name, maps in, maps out, height and width of the kernel.
Convolutions = Iterator[tuple[str, int, int, tuple[int, int]]]


def alexnet() -> Shapes:
    return {
        "features.0.weight": (64, 3, 11, 11),
        "features.0.bias": (64,),
        "features.3.weight": (192, 64, 5, 5),
        "features.3.bias": (192,),
        "features.6.weight": (384, 192, 3, 3),
        "features.6.bias": (384,),
        "features.8.weight": (256, 384, 3, 3),
        "features.8.bias": (256,),
        "features.10.weight": (256, 256, 3, 3),
        "features.10.bias": (256,),
        "classifier.1.weight": (4096, 9216),
        "classifier.1.bias": (4096,),
        "classifier.4.weight": (4096, 4096),
        "classifier.4.bias": (4096,),
        "classifier.6.weight": (1000, 4096),
        "classifier.6.bias": (1000,),
    }


def googlenet() -> Shapes:
    def convolutions() -> Convolutions:
        yield "conv1", 3, 64, (7, 7)
        yield "conv2", 64, 64, (1, 1)
        yield "conv3", 64, 192, (3, 3)
        for block, inputs, widths in (
            ("3a", 192, (64, 96, 128, 16, 32, 32)),
            ("3b", 256, (128, 128, 192, 32, 96, 64)),
            ("4a", 480, (192, 96, 208, 16, 48, 64)),
            ("4b", 512, (160, 112, 224, 24, 64, 64)),
            ("4c", 512, (128, 128, 256, 24, 64, 64)),
            ("4d", 512, (112, 144, 288, 32, 64, 64)),
            ("4e", 528, (256, 160, 320, 32, 128, 128)),
            ("5a", 832, (256, 160, 320, 32, 128, 128)),
            ("5b", 832, (384, 192, 384, 48, 128, 128)),
        ):
            one, reduce3, three, reduce5, five, pooled = widths
            yield f"inception{block}.branch1", inputs, one, (1, 1)
            yield f"inception{block}.branch2.0", inputs, reduce3, (1, 1)
            yield f"inception{block}.branch2.1", reduce3, three, (3, 3)
            yield f"inception{block}.branch3.0", inputs, reduce5, (1, 1)
            yield f"inception{block}.branch3.1", reduce5, five, (3, 3)
            yield f"inception{block}.branch4.1", inputs, pooled, (1, 1)
        yield "aux1.conv", 512, 128, (1, 1)
        yield "aux2.conv", 528, 128, (1, 1)

    heads: Shapes = {"fc.weight": (1000, 1024), "fc.bias": (1000,)}
    for head in ("aux1", "aux2"):
        heads |= {
            f"{head}.fc1.weight": (1024, 2048),
            f"{head}.fc1.bias": (1024,),
            f"{head}.fc2.weight": (1000, 1024),
            f"{head}.fc2.bias": (1000,),
        }
    return _normalised(convolutions()) | heads


def inception_v3() -> Shapes:
    def convolutions() -> Convolutions:
        yield "Conv2d_1a_3x3", 3, 32, (3, 3)
        yield "Conv2d_2a_3x3", 32, 32, (3, 3)
        yield "Conv2d_2b_3x3", 32, 64, (3, 3)
        yield "Conv2d_3b_1x1", 64, 80, (1, 1)
        yield "Conv2d_4a_3x3", 80, 192, (3, 3)
        for block, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            yield f"Mixed_{block}.branch1x1", inputs, 64, (1, 1)
            yield f"Mixed_{block}.branch5x5_1", inputs, 48, (1, 1)
            yield f"Mixed_{block}.branch5x5_2", 48, 64, (5, 5)
            yield f"Mixed_{block}.branch3x3dbl_1", inputs, 64, (1, 1)
            yield f"Mixed_{block}.branch3x3dbl_2", 64, 96, (3, 3)
            yield f"Mixed_{block}.branch3x3dbl_3", 96, 96, (3, 3)
            yield f"Mixed_{block}.branch_pool", inputs, pooled, (1, 1)
        yield "Mixed_6a.branch3x3", 288, 384, (3, 3)
        yield "Mixed_6a.branch3x3dbl_1", 288, 64, (1, 1)
        yield "Mixed_6a.branch3x3dbl_2", 64, 96, (3, 3)
        yield "Mixed_6a.branch3x3dbl_3", 96, 96, (3, 3)
        for block, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            yield f"Mixed_{block}.branch1x1", 768, 192, (1, 1)
            yield f"Mixed_{block}.branch7x7_1", 768, inner, (1, 1)
            yield f"Mixed_{block}.branch7x7_2", inner, inner, (1, 7)
            yield f"Mixed_{block}.branch7x7_3", inner, 192, (7, 1)
            yield f"Mixed_{block}.branch7x7dbl_1", 768, inner, (1, 1)
            yield f"Mixed_{block}.branch7x7dbl_2", inner, inner, (7, 1)
            yield f"Mixed_{block}.branch7x7dbl_3", inner, inner, (1, 7)
            yield f"Mixed_{block}.branch7x7dbl_4", inner, inner, (7, 1)
            yield f"Mixed_{block}.branch7x7dbl_5", inner, 192, (1, 7)
            yield f"Mixed_{block}.branch_pool", 768, 192, (1, 1)
        yield "AuxLogits.conv0", 768, 128, (1, 1)
        yield "AuxLogits.conv1", 128, 768, (5, 5)
        yield "Mixed_7a.branch3x3_1", 768, 192, (1, 1)
        yield "Mixed_7a.branch3x3_2", 192, 320, (3, 3)
        yield "Mixed_7a.branch7x7x3_1", 768, 192, (1, 1)
        yield "Mixed_7a.branch7x7x3_2", 192, 192, (1, 7)
        yield "Mixed_7a.branch7x7x3_3", 192, 192, (7, 1)
        yield "Mixed_7a.branch7x7x3_4", 192, 192, (3, 3)
        for block, inputs in (("7b", 1280), ("7c", 2048)):
            yield f"Mixed_{block}.branch1x1", inputs, 320, (1, 1)
            yield f"Mixed_{block}.branch3x3_1", inputs, 384, (1, 1)
            yield f"Mixed_{block}.branch3x3_2a", 384, 384, (1, 3)
            yield f"Mixed_{block}.branch3x3_2b", 384, 384, (3, 1)
            yield f"Mixed_{block}.branch3x3dbl_1", inputs, 448, (1, 1)
            yield f"Mixed_{block}.branch3x3dbl_2", 448, 384, (3, 3)
            yield f"Mixed_{block}.branch3x3dbl_3a", 384, 384, (1, 3)
            yield f"Mixed_{block}.branch3x3dbl_3b", 384, 384, (3, 1)
            yield f"Mixed_{block}.branch_pool", inputs, 192, (1, 1)

    heads: Shapes = {
        "AuxLogits.fc.weight": (1000, 768),
        "AuxLogits.fc.bias": (1000,),
        "fc.weight": (1000, 2048),
        "fc.bias": (1000,),
    }
    return _normalised(convolutions()) | heads


def _normalised(convolutions: Convolutions) -> Shapes:
    shapes: Shapes = {}
    for name, inputs, outputs, kernel in convolutions:
        shapes[f"{name}.conv.weight"] = (outputs, inputs, *kernel)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{statistic}"] = (outputs,)
        shapes[f"{name}.bn.num_batches_tracked"] = ()
    return shapes


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Random tensors of these shapes under which activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    return {name: _random(name, shape, generator) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    match name.rpartition(".")[2], len(shape):
        case "num_batches_tracked", _:
            return torch.tensor(1)
        case "weight", 2 | 4:
            deviation = math.sqrt(2.0 / math.prod(shape[1:]))
            return torch.empty(shape).normal_(std=deviation, generator=generator)
        case "weight" | "running_var", 1:
            return torch.empty(shape).uniform_(0.8, 1.25, generator=generator)
        case _:
            return torch.empty(shape).normal_(std=0.1, generator=generator)
