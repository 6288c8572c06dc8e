"""The average of weights, against the recurrence written in numbers."""

import pytest
import torch
from torch import nn

from weir.training.average import follow


def test_the_average_is_the_recurrence() -> None:
    network, average = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(network.weight, 0.0)
    nn.init.constant_(average.weight, 0.0)
    expected = 0.0

    for step in range(200):
        nn.init.constant_(network.weight, float(step))
        follow(average, network, decay=0.9, step=step)
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

    follow(average, network, decay=0.75, step=1000)

    torch.testing.assert_close(average.running_mean, network.running_mean * 0.25)
    assert int(average.state_dict()["num_batches_tracked"]) == 1
