"""Mixtures, against the rows they are made of."""

import pytest
import torch
from torch.nn import functional

from weir.training.images.mixup import mix
from weir.training.loop import Batch, Task, mixed_loss


def batch() -> Batch:
    return Batch((torch.eye(8),), torch.arange(8))


def test_zero_changes_nothing() -> None:
    rows = batch()

    assert mix(rows, 0.0, torch.Generator()) is rows


@pytest.mark.parametrize("seed", range(5))
def test_each_row_holds_its_own_share_and_its_partners(seed: int) -> None:
    mixed = mix(batch(), 0.4, torch.Generator().manual_seed(seed))

    assert mixed.partners is not None
    own, other = torch.eye(8), torch.eye(8)[mixed.partners.targets]
    share = mixed.partners.share
    torch.testing.assert_close(mixed.inputs[0], share * own + (1 - share) * other)
    assert sorted(mixed.partners.targets.tolist()) == list(range(8))
    assert torch.equal(mixed.targets, torch.arange(8))


def test_loss_is_that_of_soft_targets() -> None:
    """Cross entropy is linear in its targets: two hard ones in shares are one soft one."""
    mixed = mix(batch(), 1.0, torch.Generator().manual_seed(3))
    assert mixed.partners is not None
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    soft = (
        mixed.partners.share * torch.eye(8)
        + (1 - mixed.partners.share) * torch.eye(8)[mixed.partners.targets]
    )

    task = Task(1, lambda *_: iter(()), lambda: iter(()), functional.cross_entropy)

    torch.testing.assert_close(
        mixed_loss(logits, mixed, task), functional.cross_entropy(logits, soft)
    )


def test_shares_follow_the_beta_distribution() -> None:
    shares = []
    for seed in range(400):
        partners = mix(batch(), 0.2, torch.Generator().manual_seed(seed)).partners
        assert partners is not None
        shares.append(partners.share)

    measured = torch.tensor(shares, dtype=torch.float64)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert float(measured.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(measured.var()) == pytest.approx(1 / (4 * 1.4), abs=0.03)
