"""Pooling over real steps only, against numbers worked out by hand."""

import torch

from weir.training.models.masking import real_steps, state_at_end, without_padding

STATES = torch.tensor([[[1.0], [2.0], [3.0]], [[5.0], [torch.nan], [7.0]]])
LENGTHS = torch.tensor([3, 1])


def test_real_steps_are_those_before_the_length() -> None:
    assert real_steps(LENGTHS, 3).tolist() == [[True, True, True], [True, False, False]]


def test_padding_becomes_0_whatever_it_was() -> None:
    assert without_padding(STATES, LENGTHS).squeeze(2).tolist() == [[1, 2, 3], [5, 0, 0]]


def test_end_is_the_last_real_step() -> None:
    assert state_at_end(STATES, LENGTHS).tolist() == [[3], [5]]
