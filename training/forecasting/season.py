"""The season of a series: the number of steps after which it repeats."""

import numpy as np
from numpy.typing import NDArray

_SHORTEST, _LONGEST = 3, 400
_STRIDES = (1, 2, 4, 8, 16)
"""Differences over one step have the least trend; those over several see slow seasons in noise."""
_STRIDES_OF_A_SEASON = 2
_LEAST, _LEAST_DEVIATIONS = 0.25, 4.0
"""An autocorrelation must exceed both: the second is that of white noise, by its deviation."""
_LEAST_OF_STRIDES = 0.5
"""The same over several steps, where neighbouring differences share values."""
_ALIKE, _ALIKE_DEVIATIONS = 0.95, 3.0
"""Peaks are alike if they differ by a share, or by fewer standard errors: the standard error of an
autocorrelation r of T values is (1 - r^2) / sqrt(T)."""
_GAIN = 0.15
"""A longer stride must agree better by so much: it sees fewer short seasons."""
_UNSURE = 25
"""A peak is exact to a part of the season, one in so many steps."""


def find_season(values: NDArray[np.float64]) -> int:
    """Return the lag at which the differences of values (T,) agree with themselves best, or 0.

    The values must contain the season three times. Multiples of a season agree as well, so the
    first peak is taken that is nearly as high as the highest.
    """
    longest = min(len(values) // 3, _LONGEST)
    best, season = -_GAIN, 0
    for stride in _STRIDES:
        shortest = max(_SHORTEST, _STRIDES_OF_A_SEASON * stride)
        if longest < shortest:
            break
        differences = values[stride:] - values[:-stride]
        agreement = _autocorrelation(differences, longest + 1)
        peaks = [
            lag
            for lag in range(max(_SHORTEST, stride + 1), longest + 1)
            if agreement[lag - 1] < agreement[lag] >= agreement[lag + 1]
        ]
        sure = [float(agreement[lag]) for lag in peaks if lag >= shortest]
        highest = max(sure, default=0.0)
        least = max(_LEAST, _LEAST_DEVIATIONS / np.sqrt(len(differences)))
        if highest > best + _GAIN and highest >= (least if stride == 1 else _LEAST_OF_STRIDES):
            error = max(1.0 - highest**2, 0.0) / np.sqrt(len(differences))
            alike = min(highest - _ALIKE_DEVIATIONS * error, _ALIKE * highest)
            first = next(lag for lag in peaks if agreement[lag] >= alike)
            best, season = highest, _refine(first, agreement)
    return season


def _refine(season: int, agreement: NDArray[np.float64]) -> int:
    """The lag near `season` whose multiples agree best: they differ more if it is not exact."""
    width = season // _UNSURE
    near = range(season - width, season + width + 1)
    longest = len(agreement) - 1
    count = max(longest // (season + width), 1)
    return max(near, key=lambda lag: float(agreement[lag : lag * count + 1 : lag].sum()))


def _autocorrelation(values: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    """Autocorrelations of lags 0 to `longest`; of each lag's own number of pairs."""
    count = len(values)
    centred = values - values.mean()
    spectrum = np.fft.rfft(centred, 2 * count)
    sums = np.fft.irfft(np.abs(spectrum) ** 2)[: longest + 1]
    means = sums / (count - np.arange(len(sums)))
    # Of a line, only rounding errors are left.
    flat = means[0] <= 1e-12 * np.square(values).mean()
    return np.asarray(np.zeros_like(means) if flat else means / means[0])
