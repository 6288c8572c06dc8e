"""AlexNet against the paper, the published layout and independent computations."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.multiply_adds import count_multiply_adds
from tests.unit.training import layouts
from weir.training.errors import ModelError
from weir.training.models import build
from weir.training.models.alexnet import AlexNet, AlexNetOf2012
from weir.training.weight_sharing import count_sharing, free_parameters


def build_full(architecture: str, *, auxiliary: bool = False) -> nn.Module:
    """As for ImageNet."""
    return build(architecture, classes=1000, height=224, width=224, channels=3, auxiliary=auxiliary)


@pytest.fixture(scope="module")
def published() -> AlexNetOf2012:
    torch.manual_seed(0)
    return AlexNetOf2012()


def test_the_published_layout_loads_and_answers_as_a_plain_stack_of_layers() -> None:
    weights = layouts.random_weights(layouts.alexnet())
    network = AlexNet()
    network.load_state_dict(weights)
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    x = picture
    for name, stride, padding, pools in (
        ("features.0", 4, 2, True),
        ("features.3", 1, 2, True),
        ("features.6", 1, 1, False),
        ("features.8", 1, 1, False),
        ("features.10", 1, 1, True),
    ):
        x = functional.conv2d(
            x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding
        ).relu()
        x = functional.max_pool2d(x, 3, 2) if pools else x
    x = x.flatten(1)
    for number in (1, 4, 6):
        name = f"classifier.{number}"
        x = functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        x = x.relu() if number < 6 else x

    with torch.inference_mode():
        logits = network.eval()(picture)

    torch.testing.assert_close(logits, x, rtol=1e-4, atol=1e-5)


def test_the_single_tower_has_the_published_parameters_and_multiply_adds() -> None:
    network = build_full("alexnet")

    counts = count_multiply_adds(network, (3, 224, 224))

    assert free_parameters(network) == 61_100_840
    # torchvision gives 0.714 billion.
    assert sum(counts.values()) == 714_188_480


def test_alexnet_of_2012_has_the_published_parameters_and_multiply_adds() -> None:
    network = build_full("alexnet-2012")

    counts = count_multiply_adds(network, (3, 224, 224))

    assert free_parameters(network) == 60_965_224
    # Places times kernels times weights a kernel, from figure 2: each tower sees half in 2, 4
    # and 5.
    assert counts == {
        "conv1": 55**2 * 96 * 11**2 * 3,
        "conv2": 27**2 * 256 * 5**2 * 48,
        "conv3": 13**2 * 384 * 3**2 * 256,
        "conv4": 13**2 * 384 * 3**2 * 192,
        "conv5": 13**2 * 256 * 3**2 * 192,
        "fc6": 9216 * 4096,
        "fc7": 4096 * 4096,
        "fc8": 4096 * 1000,
    }
    assert sum(counts.values()) == 724_406_816
    assert sum(layer.parameters for layer in count_sharing(network, (3, 224, 224))) == 60_965_224


def test_responses_are_normalised_as_section_3_3_says(published: AlexNetOf2012) -> None:
    maps = torch.randn(1, 9, 2, 2)
    sums = torch.stack(
        [maps[0, max(i - 2, 0) : i + 3].square().sum(dim=0) for i in range(9)]
    )  # (9, 2, 2)
    expected = maps / (2.0 + 1e-4 * sums) ** 0.75

    torch.testing.assert_close(published.normalise(maps), expected)


def test_two_towers_meet_in_conv3_only(published: AlexNetOf2012) -> None:
    layers = ((published.conv2, 48), (published.conv4, 192), (published.conv5, 192))

    for layer, other in layers:
        maps = torch.zeros(1, layer.in_channels, 5, 5)
        before = layer(maps)
        maps[:, other:] = 1.0
        changed = (layer(maps) != before).flatten(2).any(dim=2)[0]
        half = layer.out_channels // 2
        assert not changed[:half].any() and changed[half:].all()
    assert (published.conv1.groups, published.conv3.groups) == (1, 1)


def test_2012_starts_as_section_5_says(published: AlexNetOf2012) -> None:
    biases = {name: each for name, each in published.named_parameters() if name.endswith(".bias")}
    ones = {f"{name}.bias" for name in ("conv2", "conv4", "conv5", "fc6", "fc7")}
    assert len(biases) == 8
    assert all(bool((bias == float(name in ones)).all()) for name, bias in biases.items())
    assert float(published.fc7.weight.detach().std()) == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (28, 28, 1), (64, 40, 3)])
def test_small_pictures_make_a_small_network(height: int, width: int, channels: int) -> None:
    network = build("alexnet", classes=7, height=height, width=width, channels=channels)

    logits = network(torch.randn(2, channels, height, width))

    assert logits.shape == (2, 7)
    kernels = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(kernels) == 5 and free_parameters(network) < 4_000_000
    assert sum(c.parameters for c in count_sharing(network, (channels, height, width))) == (
        free_parameters(network)
    )


@pytest.mark.parametrize(
    ("architecture", "side", "message"),
    [
        ("alexnet", 100, "224 x 224, or of 24 to 64 pixels a side, got 100 x 100"),
        ("alexnet", 16, "got 16 x 16"),
        ("alexnet-2012", 32, "alexnet-2012: expected pictures of 224 x 224, got 32 x 32"),
    ],
)
def test_pictures_of_other_sizes_are_refused(architecture: str, side: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(architecture, classes=10, height=side, width=side, channels=3)
