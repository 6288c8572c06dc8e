"""Additive attention against the paper's formula in numpy."""

import numpy as np
import torch
from torch import Tensor

from weir.training.models.attention import AdditiveAttention
from weir.training.models.masking import real_steps

LENGTHS = torch.tensor([7, 1, 4])
TOLERANCE = 1e-6
"""Sums of at most 8 float32 products of size 1."""


def made() -> AdditiveAttention:
    torch.manual_seed(0)
    return AdditiveAttention(query_size=5, state_size=6, size=8)


def inputs() -> tuple[Tensor, Tensor]:
    """A query and states."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 5, generator=generator), torch.randn(3, 7, 6, generator=generator)


def test_is_the_papers_formula() -> None:
    attention, (query, states) = made(), inputs()

    with torch.no_grad():
        context, weights = attention(query, attention.keys(states), states, real_steps(LENGTHS, 7))

    named = {name: weight.detach().numpy() for name, weight in attention.named_parameters()}
    for row, length in enumerate(LENGTHS):
        own = states[row, :length].numpy()
        energies = named["energy.weight"][0] @ np.tanh(
            (named["of_query.weight"] @ query[row].numpy())[:, None]
            + named["of_state.weight"] @ own.T
            + named["of_state.bias"][:, None]
        )
        expected = np.exp(energies) / np.exp(energies).sum()
        np.testing.assert_allclose(weights[row, :length], expected, atol=TOLERANCE)
        np.testing.assert_allclose(context[row], expected @ own, atol=TOLERANCE)


def test_weights_sum_to_1_and_are_0_in_the_padding() -> None:
    attention, (query, states) = made(), inputs()
    real = real_steps(LENGTHS, 7)

    _, weights = attention(query, attention.keys(states), states, real)

    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert (weights[~real] == 0).all() and (weights[real] > 0).all()


def test_padding_changes_nothing() -> None:
    attention, (query, states) = made(), inputs()
    real = real_steps(LENGTHS, 7)
    other = states.masked_fill(~real[:, :, None], 1e6)

    before = attention(query, attention.keys(states), states, real)
    after = attention(query, attention.keys(other), other, real)

    torch.testing.assert_close(after.context, before.context, atol=0, rtol=0)
    torch.testing.assert_close(after.weights, before.weights, atol=0, rtol=0)
