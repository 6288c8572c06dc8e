"""The trend of a series of measurements: the Theil-Sen estimator of its slope. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z_95 = 1.96
_MAX_POINTS = 600


@dataclass(frozen=True, slots=True)
class Slope:
    """A slope per second, with its 95 % confidence interval, over so many seconds."""

    value: float
    low: float
    high: float
    seconds: float


def theil_sen(times_s: Sequence[float], values: Sequence[float]) -> Slope | None:
    """The median of the slopes of all pairs of points (Sen, 1968); None for fewer than 8 points.

    The interval is that of Kendall's tau for points without ties.
    """
    step = max(1, len(times_s) // _MAX_POINTS)
    x, y = np.array(times_s[::step], float), np.array(values[::step], float)
    count = len(x)
    if count < 8:
        return None
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    half = _Z_95 * float(np.sqrt(count * (count - 1) * (2 * count + 5) / 18)) / 2
    middle = len(slopes) / 2
    low = slopes[max(0, int(middle - half))]
    high = slopes[min(len(slopes) - 1, int(middle + half))]
    return Slope(float(np.median(slopes)), float(low), float(high), float(x[-1] - x[0]))
