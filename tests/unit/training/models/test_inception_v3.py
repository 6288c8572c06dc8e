"""Inception v3 against the published layout and independent computations."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.multiply_adds import count_multiply_adds
from tests.unit.training import layouts
from weir.training.errors import ModelError
from weir.training.models import build
from weir.training.models.layers import WithAuxiliary
from weir.training.weight_sharing import count_sharing, free_parameters


def build_full(architecture: str, *, auxiliary: bool = False) -> nn.Module:
    """As for ImageNet."""
    return build(architecture, classes=1000, height=299, width=299, channels=3, auxiliary=auxiliary)


def plain_inception(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network as functions of its weights; a convolution that keeps the size pads by half."""

    def convolve(name: str, x: Tensor, stride: int = 1, *, keeps: bool = True) -> Tensor:
        weight = weights[f"{name}.conv.weight"]
        padding = [side // 2 if keeps else 0 for side in weight.shape[2:]]
        x = functional.conv2d(x, weight, None, stride, padding)
        mean, var, scale, bias = (
            weights[f"{name}.bn.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, scale, bias, eps=0.001).relu()

    def chain(block: str, names: str, x: Tensor, last_stride: int = 1) -> Tensor:
        *first, last = names.split()
        for name in first:
            x = convolve(f"Mixed_{block}.branch{name}", x)
        return convolve(f"Mixed_{block}.branch{last}", x, last_stride, keeps=last_stride == 1)

    def pooled(block: str, x: Tensor) -> Tensor:
        return chain(block, "_pool", functional.avg_pool2d(x, 3, 1, 1))

    def side_by_side(block: str, x: Tensor, *branches: str) -> list[Tensor]:
        return [chain(block, names, x) for names in branches]

    x = convolve("Conv2d_1a_3x3", x, 2, keeps=False)
    x = convolve("Conv2d_2b_3x3", convolve("Conv2d_2a_3x3", x, keeps=False))
    x = convolve("Conv2d_3b_1x1", functional.max_pool2d(x, 3, 2))
    x = functional.max_pool2d(convolve("Conv2d_4a_3x3", x, keeps=False), 3, 2)
    for block in ("5b", "5c", "5d"):
        branches = ("1x1", "5x5_1 5x5_2", "3x3dbl_1 3x3dbl_2 3x3dbl_3")
        x = torch.cat([*side_by_side(block, x, *branches), pooled(block, x)], dim=1)
    double = chain("6a", "3x3dbl_1 3x3dbl_2 3x3dbl_3", x, 2)
    x = torch.cat([chain("6a", "3x3", x, 2), double, functional.max_pool2d(x, 3, 2)], dim=1)
    for block in ("6b", "6c", "6d", "6e"):
        dbl = " ".join(f"7x7dbl_{number}" for number in range(1, 6))
        branches = ("1x1", "7x7_1 7x7_2 7x7_3", dbl)
        x = torch.cat([*side_by_side(block, x, *branches), pooled(block, x)], dim=1)
    seven = chain("7a", "7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4", x, 2)
    three = chain("7a", "3x3_1 3x3_2", x, 2)
    x = torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], dim=1)
    for block in ("7b", "7c"):
        threes = ("3x3_1 3x3_2a", "3x3_1 3x3_2b")
        doubles = ("3x3dbl_1 3x3dbl_2 3x3dbl_3a", "3x3dbl_1 3x3dbl_2 3x3dbl_3b")
        branched = side_by_side(block, x, "1x1", *threes, *doubles)
        x = torch.cat([*branched, pooled(block, x)], dim=1)
    return functional.linear(x.mean(dim=(2, 3)), weights["fc.weight"], weights["fc.bias"])


@pytest.mark.parametrize("auxiliary", [True, False], ids=["with head", "without"])
def test_the_published_layout_loads(*, auxiliary: bool) -> None:
    network = build_full("inception-v3", auxiliary=auxiliary)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}

    assert shapes == layouts.inception_v3(auxiliary=auxiliary)


def test_it_answers_as_plain_functions_of_the_weights_and_drops_the_heads() -> None:
    weights = layouts.random_weights(layouts.inception_v3(auxiliary=True))
    network = build_full("inception-v3")
    network.load_state_dict(weights)
    picture = torch.randn(1, 3, 299, 299, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        logits = network.eval()(picture)
        expected = plain_inception(weights, picture)

    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_parameters_and_multiply_adds_are_the_published_ones() -> None:
    network = build_full("inception-v3")

    assert free_parameters(network) == 23_834_568
    assert free_parameters(build_full("inception-v3", auxiliary=True)) == 27_161_264
    # torchvision gives 5.713 billion.
    assert sum(count_multiply_adds(network, (3, 299, 299)).values()) == 5_713_216_096
    assert sum(c.parameters for c in count_sharing(network, (3, 299, 299))) == 23_834_568


@pytest.mark.parametrize("side", [32, 64, 299])
def test_the_head_answers_in_training(side: int) -> None:
    network = build("inception-v3", classes=5, height=side, width=side, channels=3, auxiliary=True)
    pictures = torch.randn(2, 3, side, side)

    with torch.inference_mode():
        in_training = network.train()(pictures)
        in_use = network.eval()(pictures)

    assert isinstance(in_training, WithAuxiliary)
    assert [logits.shape for logits in in_training.auxiliary] == [(2, 5)]
    assert in_use.shape == (2, 5)


def test_pictures_of_other_sizes_are_refused() -> None:
    with pytest.raises(ModelError, match="299 x 299, or of 32 to 64 pixels a side, got 224 x 224"):
        build("inception-v3", classes=10, height=224, width=224, channels=3)
