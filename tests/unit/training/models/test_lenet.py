"""LeNet-5 against the paper and against independent computations."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from weir.training.errors import ModelError
from weir.training.models import build
from weir.training.models.lenet import (
    C3_INPUTS,
    LeNet5,
    LeNet5Of1998,
    PartialConvolution,
    RadialBasis,
    TrainableSubsampling,
    class_codes,
)
from weir.training.weight_sharing import free_parameters


def test_modern_form_agrees_with_a_plain_stack_of_layers() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    network = LeNet5()
    network.load_state_dict(
        dict(zip(network.state_dict(), plain.state_dict().values(), strict=True))
    )
    pictures = torch.randn(3, 1, 28, 28)

    logits = network(pictures)

    torch.testing.assert_close(logits, plain(pictures))
    assert free_parameters(network) == 61_706


def test_partial_convolution_agrees_with_one_convolution_for_each_map() -> None:
    torch.manual_seed(0)
    layer = PartialConvolution(C3_INPUTS, kernel_size=5)
    nn.init.normal_(layer.bias)
    maps = torch.randn(2, 6, 14, 14)
    first = 0
    expected = []
    for row, columns in enumerate(C3_INPUTS):
        kernels = layer.kernels[first : first + len(columns)][None]  # (1, inputs, 5, 5)
        expected.append(
            functional.conv2d(maps[:, list(columns)], kernels, layer.bias[row : row + 1])
        )
        first += len(columns)

    answer = layer(maps)

    torch.testing.assert_close(answer, torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_connection_table_is_the_papers() -> None:
    seen_by = [sum(column in columns for columns in C3_INPUTS) for column in range(6)]

    assert [len(columns) for columns in C3_INPUTS] == [3] * 6 + [4] * 9 + [6]
    assert seen_by == [10] * 6
    assert len({frozenset(columns) for columns in C3_INPUTS}) == 16


def test_subsampling_agrees_with_numpy() -> None:
    layer = TrainableSubsampling(2)
    nn.init.normal_(layer.coefficient)
    nn.init.normal_(layer.bias)
    maps = np.random.default_rng(0).normal(size=(3, 2, 4, 6)).astype(np.float32)
    sums = maps.reshape(3, 2, 2, 2, 3, 2).sum(axis=(3, 5))
    expected = sums * layer.coefficient.detach().numpy() + layer.bias.detach().numpy()

    answer = layer(torch.from_numpy(maps))

    np.testing.assert_allclose(answer.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_output_is_minus_the_squared_distance_to_each_code() -> None:
    features = np.random.default_rng(0).normal(size=(4, 84)).astype(np.float32)
    codes = class_codes(10)
    expected = [[-((row - code) ** 2).sum() for code in codes.numpy()] for row in features]

    logits = RadialBasis(codes)(torch.from_numpy(features))

    np.testing.assert_allclose(logits.numpy(), np.array(expected), rtol=1e-5)


def test_each_class_has_its_own_code_of_plus_and_minus_one() -> None:
    codes = class_codes(10)

    distances = (codes[:, None] != codes).sum(dim=2)

    assert codes.shape == (10, 84)
    assert set(codes.flatten().tolist()) == {-1.0, 1.0}
    assert distances[~torch.eye(10, dtype=torch.bool)].min() >= 12


def test_1998_form_takes_both_sizes_alike() -> None:
    torch.manual_seed(0)
    small = LeNet5Of1998(height=28, width=28)
    large = LeNet5Of1998(height=32, width=32)
    large.load_state_dict(small.state_dict())
    picture = torch.rand(2, 1, 28, 28)
    padded = functional.pad(picture, (2, 2, 2, 2), value=-0.1)

    torch.testing.assert_close(small(picture), large(padded))


def test_codes_are_not_trained() -> None:
    network = LeNet5Of1998()

    assert "output.codes" in network.state_dict()
    assert "output.codes" not in dict(network.named_parameters())


@pytest.mark.parametrize(
    ("architecture", "classes", "side", "channels", "message"),
    [
        ("lenet6", 10, 28, 1, "unknown network 'lenet6'; there are .* lenet5, lenet5-1998"),
        ("lenet5", 10, 32, 1, "lenet5: expected pictures of 28 x 28, got 32 x 32"),
        ("lenet5-1998", 10, 30, 1, "expected pictures of 28 x 28 or 32 x 32, got 30 x 30"),
        ("lenet5-1998", 10, 28, 3, "expected grey pictures"),
        ("lenet5-1998", 11, 28, 1, "codes for 2 to 10 classes, got 11"),
    ],
    ids=["name", "size", "size of 1998", "colour", "classes"],
)
def test_invalid_settings_are_refused(
    architecture: str, classes: int, side: int, channels: int, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        build(architecture, classes=classes, height=side, width=side, channels=channels)
