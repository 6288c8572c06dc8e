"""mixup: pictures laid over each other, and answers that are right in the same shares.

H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412.
Deviation, as in the paper's own code: one share for the whole batch.
"""

import numpy as np
import torch

from weir.training.loop import Batch, Partners


def mix(batch: Batch, alpha: float, generator: torch.Generator) -> Batch:
    """Lay each row over another of the batch.

    Args:
        batch: rows of float32, targets (B,).
        alpha: of the symmetric beta distribution that the share is drawn from; 0 changes nothing.
        generator: on the CPU.
    """
    if not alpha:
        return batch
    order = torch.randperm(len(batch.targets), generator=generator).to(batch.targets.device)
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    inputs = tuple(each * share + each[order] * (1.0 - share) for each in batch.inputs)
    return Batch(inputs, batch.targets, Partners(batch.targets[order], share))
