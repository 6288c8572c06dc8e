"""Random numbers that depend on a place in the run and not on what ran before.

Order and distortions of every step are drawn from (seed, purpose, epoch, step). So a resumed run draws
what the uninterrupted one would have drawn, and no generator's state has to be saved for them.
"""

import enum

import numpy as np
import torch


class Purpose(enum.IntEnum):
    """What numbers are for: the same place gives unrelated numbers to each purpose."""

    DIVISION = 0
    ORDER = 1
    DISTORTION = 2


def derive_seed(seed: int, purpose: Purpose, *place: int) -> int:
    """A 64-bit seed for one place in the run."""
    words = np.random.SeedSequence([seed, purpose, *place]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) & 0x7FFF_FFFF_FFFF_FFFF


def generator_for(seed: int, purpose: Purpose, *place: int) -> torch.Generator:
    """A CPU generator for one place in the run."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *place))
