"""Inception v1 against table 1, the published layout and independent computations."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.multiply_adds import count_multiply_adds
from tests.unit.training import layouts
from weir.training.errors import ModelError
from weir.training.models import build
from weir.training.models.inception import InceptionV1
from weir.training.models.layers import IMAGENET_MEAN, IMAGENET_STD, WithAuxiliary
from weir.training.weight_sharing import count_sharing, free_parameters

SIDE = 224


def build_full(architecture: str, *, auxiliary: bool = False) -> nn.Module:
    """As for ImageNet."""
    return build(
        architecture, classes=1000, height=SIDE, width=SIDE, channels=3, auxiliary=auxiliary
    )


def plain_googlenet(weights: dict[str, Tensor], picture: Tensor) -> Tensor:
    """The network as a few functions of its weights."""

    def convolve(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        x = functional.conv2d(x, weights[f"{name}.conv.weight"], None, stride, padding)
        mean, var, scale, bias = (
            weights[f"{name}.bn.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, scale, bias, eps=0.001).relu()

    def block(name: str, x: Tensor) -> Tensor:
        one = convolve(f"{name}.branch1", x)
        two = convolve(f"{name}.branch2.1", convolve(f"{name}.branch2.0", x), padding=1)
        three = convolve(f"{name}.branch3.1", convolve(f"{name}.branch3.0", x), padding=1)
        pooled = functional.max_pool2d(x, 3, 1, 1)
        return torch.cat([one, two, three, convolve(f"{name}.branch4.1", pooled)], dim=1)

    x = functional.max_pool2d(convolve("conv1", picture, 2, 3), 3, 2, ceil_mode=True)
    x = convolve("conv3", convolve("conv2", x), padding=1)
    x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        x = block(f"inception{name}", x)
        if name == "3b":
            x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        if name == "4e":
            x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
    return functional.linear(x.mean(dim=(2, 3)), weights["fc.weight"], weights["fc.bias"])


@pytest.mark.parametrize("auxiliary", [True, False], ids=["with heads", "without"])
def test_the_published_layout_loads_and_answers_as_plain_functions(*, auxiliary: bool) -> None:
    weights = layouts.random_weights(layouts.googlenet(auxiliary=auxiliary))
    network = build_full("googlenet")
    network.load_state_dict(weights)
    picture = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        logits = network.eval()(picture)

    torch.testing.assert_close(logits, plain_googlenet(weights, picture), rtol=1e-4, atol=1e-5)


def test_a_network_with_heads_loads_the_complete_layout() -> None:
    network = build_full("googlenet", auxiliary=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}

    assert shapes == layouts.googlenet(auxiliary=True)
    with pytest.raises(RuntimeError, match=r"Missing key.*aux1\.conv\.conv\.weight"):
        network.load_state_dict(layouts.random_weights(layouts.googlenet(auxiliary=False)))


def test_parameters_are_the_published_ones() -> None:
    assert free_parameters(build_full("inception-v1")) == 6_998_552
    assert free_parameters(build_full("googlenet")) == 6_624_904
    # Both heads in torchvision's layout.
    assert free_parameters(build_full("googlenet", auxiliary=True)) == 13_004_888


def test_multiply_adds_are_those_of_table_1() -> None:
    counts = count_multiply_adds(build_full("inception-v1"), (3, SIDE, SIDE))

    millions: Counter[str] = Counter()
    for name, count in counts.items():
        millions[name.partition(".")[0].removeprefix("inception")] += count
    table = {"3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5b": 71}
    for block, published in table.items():
        assert millions[block] / 1e6 == pytest.approx(published, abs=1.0)
    assert (millions["conv2"] + millions["conv3"]) / 1e6 == pytest.approx(360, abs=1.0)
    assert millions["fc"] == 1_024_000
    # Two rows of the table do not follow from the widths it gives: 34 M for the first and 54 M for
    # 5a.
    assert millions["conv1"] == 112**2 * 64 * 7**2 * 3 == 118_013_952
    widths = 832 * (256 + 160 + 32 + 128) + 160 * 320 * 9 + 32 * 128 * 25
    assert millions["5a"] == 7**2 * widths == 51_079_168
    assert sum(counts.values()) == 1_582_671_872


def test_multiply_adds_of_the_weights_layout_are_torchvisions() -> None:
    network = build_full("googlenet")

    # torchvision gives 1.498 billion.
    assert sum(count_multiply_adds(network, (3, SIDE, SIDE)).values()) == 1_498_376_192
    assert sum(c.parameters for c in count_sharing(network, (3, SIDE, SIDE))) == 6_624_904


@pytest.mark.parametrize("architecture", ["inception-v1", "inception-v1-bn", "googlenet"])
def test_heads_answer_in_training_and_are_gone_without(architecture: str) -> None:
    torch.manual_seed(0)
    network = build(architecture, classes=5, height=SIDE, width=SIDE, channels=3, auxiliary=True)
    bare = build(architecture, classes=5, height=SIDE, width=SIDE, channels=3)
    bare.load_state_dict(network.state_dict())
    pictures = torch.randn(2, 3, SIDE, SIDE)

    with torch.inference_mode():
        in_training = network.train()(pictures)
        in_use, without = network.eval()(pictures), bare.eval()(pictures)

    assert isinstance(in_training, WithAuxiliary)
    assert [logits.shape for logits in in_training.auxiliary] == [(2, 5), (2, 5)]
    assert in_use.shape == without.shape == (2, 5)
    assert not any(name.startswith("aux") for name, _ in bare.named_parameters())


def test_as_published_there_are_biases_and_normalised_responses() -> None:
    published, normalised = (build_full(name) for name in ("inception-v1", "inception-v1-bn"))

    assert not any("bn" in name for name in published.state_dict())
    assert any("bn" in name for name in normalised.state_dict())
    assert isinstance(published.normalise, torch.nn.LocalResponseNorm)
    assert isinstance(normalised.normalise, torch.nn.Identity)


def test_transform_input_takes_imagenets_normalisation_for_a_half_and_a_half() -> None:
    torch.manual_seed(0)
    plain = InceptionV1(height=32, width=32).eval()
    transforming = InceptionV1(height=32, width=32, transform_input=True).eval()
    transforming.load_state_dict(plain.state_dict())
    scaled = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))

    torch.testing.assert_close(
        transforming((scaled - mean) / std), plain((scaled - 0.5) / 0.5), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("side", "channels"), [(32, 3), (28, 1), (64, 3)])
def test_small_pictures_make_a_small_network(side: int, channels: int) -> None:
    network = build("inception-v1", classes=7, height=side, width=side, channels=channels)

    with torch.inference_mode():
        logits = network.eval()(torch.randn(2, channels, side, side))
    assert logits.shape == (2, 7)
    assert free_parameters(network) < 1_510_000
    counted = count_sharing(network, (channels, side, side))
    assert sum(layer.parameters for layer in counted) == free_parameters(network)


def test_pictures_of_other_sizes_are_refused() -> None:
    with pytest.raises(ModelError, match="224 x 224, or of 24 to 64 pixels a side, got 100 x 100"):
        InceptionV1(height=100, width=100)
