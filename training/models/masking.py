"""What an encoder makes of a batch of sequences, and what is read off it without seeing the padding.

Rows of a batch are padded to one length; `lengths` says how many steps of each are real. Every encoder keeps
one promise: what stands in the padding changes nothing, and its own states there are 0.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Encoded(NamedTuple):
    """The states of an encoder over a batch of sequences.

    Attributes:
        states: (B, T, W), one for each step; exactly 0 beyond a row's length.
        last: (B, W), what a row comes to: of a forward direction the state at its last real step, of a
            backward direction the one at its first.
    """

    states: Tensor
    last: Tensor


def real_steps(lengths: Tensor, steps: int) -> Tensor:
    """(B, T) bool, True where a step is real, for lengths (B,) and T = `steps`."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]  # (B, T)


def without_padding(states: Tensor, lengths: Tensor) -> Tensor:
    """States (B, T, W) with 0 beyond each row's length, whatever stood there, not-a-number included."""
    real = real_steps(lengths, states.shape[1])[:, :, None]  # (B, T, 1)
    return states.masked_fill(~real, 0.0)


def state_at_end(states: Tensor, lengths: Tensor) -> Tensor:
    """(B, W), the state of each row's last real step, of states (B, T, W)."""
    at = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])  # (B, 1, W)
    return states.gather(1, at).squeeze(1)  # (B, W)


def mean_state(states: Tensor, lengths: Tensor) -> Tensor:
    """(B, W), the mean over each row's real steps, of states (B, T, W) that may be anything beyond."""
    total = without_padding(states, lengths).sum(dim=1)  # (B, W)
    return total / lengths[:, None]
