"""Gradient norms by lag against a power law and against autograd; the figure."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from weir.training.errors import ModelError
from weir.training.models.recurrent import Cell, Recurrent
from weir.training.text.gradients import draw_gradients, norms_by_lag


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.2], ids=["vanishes", "stays", "explodes"])
@pytest.mark.parametrize("lengths", [[30, 30], [30, 11]], ids=["equal", "unequal"])
def test_linear_network_follows_the_power_law(factor: float, lengths: list[int]) -> None:
    # At a state of 0 the hyperbolic tangent has slope 1, so the network is linear there.
    torch.manual_seed(0)
    encoder = Recurrent("rnn", 3, 8)
    (layer,) = encoder.stack()
    with torch.no_grad():
        layer.rnn.all_weights[0][1].mul_(factor)  # orthogonal, so each step scales by the factor

    norms = norms_by_lag(encoder, torch.zeros(2, 30, 3), torch.tensor(lengths))

    np.testing.assert_allclose(norms, factor ** np.arange(30), rtol=1e-4)


@pytest.mark.parametrize("cell", get_args(Cell), ids=str)
@pytest.mark.parametrize("layers", [1, 2], ids=["1 layer", "2 layers"])
def test_gradient_reaches_back_through_every_cell(cell: Cell, layers: int) -> None:
    torch.manual_seed(0)
    encoder = Recurrent(cell, 3, 8, layers=layers, dropout=0.5, truncate_steps=4)

    norms = norms_by_lag(encoder, torch.randn(4, 20, 3), torch.tensor([20, 7, 1, 13]))

    assert norms.shape == (20,)
    assert layers == 2 or norms[0] == pytest.approx(1.0)
    assert (norms > 0).all()
    assert all(weight.grad is None for weight in encoder.parameters())


def test_memory_kept_whole_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    encoder = Recurrent("lstm", 3, 8)
    (layer,) = encoder.stack()
    with torch.no_grad():
        for weight in layer.rnn.parameters():
            weight.zero_()
        layer.rnn.all_weights[0][2][8:16] = 20.0  # the forget gate stays open, the others halve

    norms = norms_by_lag(encoder, torch.zeros(2, 40, 3), torch.tensor([40, 40]))

    # h = o tanh(c) with o = 1/2 and c = 0: half of the direction arrives at every memory.
    np.testing.assert_allclose(norms[1:], 0.5, rtol=1e-4)


def test_two_directions_are_refused() -> None:
    encoder = Recurrent("lstm", 3, 8, bidirectional=True)

    with pytest.raises(ModelError, match="one direction"):
        norms_by_lag(encoder, torch.zeros(2, 5, 3), torch.tensor([5, 5]))


@pytest.mark.parametrize("titles", [["before"], ["before", "after"]], ids=["one", "two"])
def test_picture_is_drawn_and_small(tmp_path: Path, titles: list[str]) -> None:
    curves = {
        "rnn": 0.5 ** np.arange(100.0),
        "gru": 0.9 ** np.arange(100.0),
        "lstm": np.zeros(100),
    }

    draw_gradients(dict.fromkeys(titles, curves), tmp_path / "gradients.png")

    assert (tmp_path / "gradients.png").stat().st_size <= 100_000
    with Image.open(tmp_path / "gradients.png") as picture:
        assert min(picture.size) >= 300 and max(picture.size) <= 1600
