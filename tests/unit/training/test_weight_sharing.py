"""Parameters and connections, against the paper's own table of numbers."""

import pytest
import torch
from torch import nn

from weir.training.errors import ModelError
from weir.training.models import build
from weir.training.weight_sharing import count_sharing


def counts(architecture: str) -> dict[str, tuple[int, int]]:
    network = build(architecture, classes=10, height=28, width=28, channels=1)
    return {c.name: (c.parameters, c.connections) for c in count_sharing(network, (1, 28, 28))}


def test_lenet5_of_1998_has_the_papers_parameters_and_connections() -> None:
    layers = counts("lenet5-1998")

    assert layers == {
        "c1": (156, 122_304),
        "s2": (12, 5_880),
        "c3": (1_516, 151_600),
        "s4": (32, 2_000),
        "c5": (48_120, 48_120),
        "f6": (10_164, 10_164),
        "output": (0, 840),
    }
    assert sum(parameters for parameters, _ in layers.values()) == 60_000
    assert sum(connections for _, connections in layers.values()) == 340_908


def test_modern_lenet5_counts() -> None:
    layers = counts("lenet5")

    assert sum(parameters for parameters, _ in layers.values()) == 61_706
    assert layers["c1"] == (156, 122_304)
    assert layers["s2"] == (0, 6 * 14 * 14 * 4)
    assert layers["c3"] == (2_416, 10 * 10 * 2_416)


def test_layers_of_other_image_networks_are_counted() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d((2, 1)),
        nn.AdaptiveAvgPool2d(1),
    )

    layers = [(c.parameters, c.connections) for c in count_sharing(network, (4, 6, 6))]

    assert layers == [
        (8 * 2 * 9, 8 * 16 * 2 * 9),
        (16, 8 * 16 * 2),
        (0, 8 * 2 * 4 * 2),
        (0, 8 * 2 * 4),
    ]


def test_a_layer_of_unknown_kind_is_refused() -> None:
    network = nn.Sequential(nn.PReLU())

    with pytest.raises(ModelError, match="PReLU: it is not known how this layer connects"):
        count_sharing(network, (1, 4, 4))


def test_counting_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    count_sharing(network, (1, 4, 4))

    assert network.training
    torch.testing.assert_close(dict(network.state_dict()), before)
