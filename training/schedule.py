"""The learning rate of every step: up in a line, then down in half a cosine (one cycle)."""

import math


def learning_rate(step: int, *, steps: int, peak: float, warmup_share: float) -> float:
    """The rate of one step: above 0 from the first, `peak` at the end of warm-up, near 0 at the last.

    Args:
        step: from 0.
        steps: of the whole run.
        peak: the highest rate.
        warmup_share: of all steps, spent on the way up.
    """
    warmup = max(int(steps * warmup_share), 1)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup + 1) / (steps - warmup + 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))
