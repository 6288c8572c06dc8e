import numpy as np
import pytest
import torch
from torch import nn

from weir.export.runs.images import ImageGraph, sharing_of
from weir.training.models import build


class Recorder(nn.Module):
    """Hands on what it is given, flattened."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def test_normalises_as_the_formula_says() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)

    logits = ImageGraph(Recorder(), mean, std)(torch.from_numpy(image)).logits

    expected = ((image / 255.0 - mean) / std).transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-6)


def test_probabilities_are_the_softmax() -> None:
    image = torch.randint(0, 256, (3, 2, 2, 1), dtype=torch.uint8)

    outputs = ImageGraph(Recorder(), [0.5], [0.5])(image)

    odds = np.exp(outputs.logits.numpy())
    np.testing.assert_allclose(
        outputs.probabilities.numpy(), odds / odds.sum(axis=1, keepdims=True), rtol=1e-5
    )
    assert outputs.probabilities.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_lenet5_of_1998_is_counted_as_its_paper_does() -> None:
    network = build("lenet5-1998", classes=10, height=28, width=28, channels=1)

    sharing = sharing_of(network, 1, 28, 28)

    assert (sharing.parameters, sharing.connections) == (60_000, 340_908)
