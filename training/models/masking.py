"""Masking of padding: encoder outputs over a batch, and pooling over the real steps only.

Rows of a batch are padded to one length; `lengths` gives the real steps of each. Two rules hold for
every encoder: the values in the padding change no result, and the states there are 0.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Encoded(NamedTuple):
    """The states of an encoder over a batch of sequences.

    Attributes:
        states: (B, T, W), one for each step; exactly 0 beyond a row's length.
        last: (B, W), the final state of a row: in forward direction that of the last real step, in
            backward direction that of the first.
    """

    states: Tensor
    last: Tensor


def real_steps(lengths: Tensor, steps: int) -> Tensor:
    """(B, T) bool, True where a step is real, for lengths (B,) and T = `steps`."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]  # (B, T)


def without_padding(states: Tensor, lengths: Tensor) -> Tensor:
    """States (B, T, W) with 0 beyond each row's length; NaN is overwritten too."""
    real = real_steps(lengths, states.shape[1])[:, :, None]  # (B, T, 1)
    return states.masked_fill(~real, 0.0)


def state_at_end(states: Tensor, lengths: Tensor) -> Tensor:
    """(B, W), the state of each row's last real step, of states (B, T, W)."""
    at = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])  # (B, 1, W)
    return states.gather(1, at).squeeze(1)  # (B, W)
