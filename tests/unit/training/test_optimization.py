"""Optimisers, losses, learning-rate schedule and weight averaging."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from weir.training.optimization import (
    NO_TARGET,
    RUBBISH_DISTANCE,
    UNSEEN,
    choose_loss,
    cross_entropy,
    learning_rate,
    make_optimizer,
    update_average,
    weigh_classes,
)
from weir.training.recipe import OptimizerSettings
from weir.training.recipes import make_recipe


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


LOGITS = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32) * 10 - 30
LABELS = np.arange(6)


def test_map_loss_is_equation_9() -> None:
    loss = choose_loss(make_recipe("lenet5-1998", "mnist"))
    distances = -LOGITS.astype(np.float64)
    rest = np.log(np.exp(-RUBBISH_DISTANCE) + np.exp(-distances).sum(axis=1))
    expected = (distances[np.arange(6), LABELS] + rest).mean()

    value = loss(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))

    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_smooths_as_the_recipe_says() -> None:
    loss = choose_loss(make_recipe("lenet5", "mnist", label_smoothing=0.2))
    logits = LOGITS.astype(np.float64)
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = np.full((6, 10), 0.02)
    wanted[np.arange(6), LABELS] += 0.8
    expected = -(wanted * log_shares).sum(axis=1).mean()

    value = loss(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))

    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2)], ids=str)
def test_cross_entropy_is_torchs_over_the_targets_that_are_classes(
    shape: tuple[int, ...], smoothing: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(*shape, 5, generator=generator, requires_grad=True)
    targets = torch.randint(0, 5, shape, generator=generator)
    targets.view(-1)[[1, 4]] = NO_TARGET
    targets.view(-1)[7] = UNSEEN
    known = targets >= 0

    value = cross_entropy(logits, targets, smoothing=smoothing)

    expected = functional.cross_entropy(logits[known], targets[known], label_smoothing=smoothing)
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(value, logits)
    assert not gradient[~known].any() and gradient[known].any(dim=-1).all()


def test_cross_entropy_without_any_class_is_zero() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)

    value = cross_entropy(logits, torch.tensor([[UNSEEN] * 3, [NO_TARGET] * 3]), smoothing=0.1)

    assert value.item() == 0.0
    assert not torch.autograd.grad(value, logits)[0].any()


def rates(steps: int, warmup_share: float) -> list[float]:
    return [
        learning_rate(step, steps=steps, peak=2.0, warmup_share=warmup_share)
        for step in range(steps)
    ]


def test_rises_in_a_line_to_the_peak_and_falls_to_nearly_nothing() -> None:
    curve = rates(100, 0.1)

    assert curve[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(curve) == curve[9] == 2.0
    assert curve[9:] == sorted(curve[9:], reverse=True)
    assert curve[54] == pytest.approx(1.0, abs=0.03)
    assert 0.0 < curve[-1] < 0.002


@pytest.mark.parametrize("steps", [1, 2, 3], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99], ids=str)
def test_the_shortest_runs_have_a_rate_above_zero(steps: int, share: float) -> None:
    assert all(0.0 < rate <= 2.0 for rate in rates(steps, share))


def test_the_average_is_the_recurrence() -> None:
    network, average = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(network.weight, 0.0)
    nn.init.constant_(average.weight, 0.0)
    expected = 0.0

    for step in range(200):
        nn.init.constant_(network.weight, float(step))
        update_average(average, network, decay=0.9, step=step)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = kept * expected + (1.0 - kept) * step

    assert average.weight.item() == pytest.approx(expected, rel=1e-5)
    # In the steady state it lags behind a line by decay / (1 - decay) steps.
    assert average.weight.item() == pytest.approx(199 - 9, abs=0.1)


def test_statistics_follow_and_counts_are_copied() -> None:
    torch.manual_seed(0)
    network, average = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    network(torch.randn(20, 3) + 5.0)
    assert network.running_mean is not None and average.running_mean is not None

    update_average(average, network, decay=0.75, step=1000)

    torch.testing.assert_close(average.running_mean, network.running_mean * 0.25)
    assert int(average.state_dict()["num_batches_tracked"]) == 1


def test_weights_of_classes_have_a_mean_of_one_over_the_targets() -> None:
    targets = torch.tensor([0] * 16 + [1] * 4 + [UNSEEN, NO_TARGET])

    root = weigh_classes(0.5, targets, 2)
    balanced = weigh_classes(1.0, targets, 2)

    assert weigh_classes(0.0, targets, 2) is None
    assert root is not None and balanced is not None
    assert (root[1] / root[0]).item() == pytest.approx(2.0)
    assert (balanced[1] / balanced[0]).item() == pytest.approx(4.0)
    for weights in (root, balanced):
        assert weights[targets[targets >= 0]].mean().item() == pytest.approx(1.0)


def test_weighted_loss_counts_a_rare_class_more() -> None:
    logits, targets = torch.zeros(3, 2), torch.tensor([0, 0, 1])
    loss = choose_loss(make_recipe("question", "trec"), torch.tensor([0.5, 2.0]))

    value = loss(logits, targets)

    # All logits are equal, so each row's loss is log 2, whatever the smoothing.
    smoothing = make_recipe("question", "trec").label_smoothing
    mean = (0.5 + 2.0) / 2
    rows = [(1 - smoothing) * weight + smoothing * mean for weight in (0.5, 0.5, 2.0)]
    assert value.item() == pytest.approx(np.log(2) * sum(rows) / 3, rel=1e-6)
