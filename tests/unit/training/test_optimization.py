"""Which parameters decay, and what the optimisers are."""

import torch
from torch import nn

from weir.training.optimization import make_optimizer
from weir.training.recipe import OptimizerSettings


def test_weights_decay_and_biases_do_not() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))

    optimizer = make_optimizer(network, OptimizerSettings(learning_rate=0.1, weight_decay=0.5))

    decayed = {
        id(tensor): group["weight_decay"]
        for group in optimizer.param_groups
        for tensor in group["params"]
    }
    assert [decayed[id(tensor)] for tensor in network.parameters()] == [0.5, 0, 0, 0, 0.5, 0]


def test_kinds_are_what_they_say() -> None:
    network = nn.Linear(2, 2)

    adamw = make_optimizer(network, OptimizerSettings(learning_rate=0.1))
    sgd = make_optimizer(network, OptimizerSettings(kind="sgd", learning_rate=0.1, momentum=0.8))
    plain = make_optimizer(network, OptimizerSettings(kind="sgd", learning_rate=0.1, momentum=0.0))

    assert isinstance(adamw, torch.optim.AdamW) and isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.8 and sgd.defaults["nesterov"]
    assert not plain.defaults["nesterov"]
