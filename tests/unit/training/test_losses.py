"""The losses, against their formulas in numpy and torch's own."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from weir.training.loop import NO_TARGET, UNSEEN
from weir.training.losses import RUBBISH_DISTANCE, choose_loss, cross_entropy
from weir.training.recipes import make_recipe

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
