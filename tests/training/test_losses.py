"""The losses, against their formulas in numpy."""

import numpy as np
import pytest
import torch

from training.losses import RUBBISH_DISTANCE, choose_loss
from training.recipes import make_recipe

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
