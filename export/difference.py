"""Difference of an output from its expected values, by the rule of `numpy.allclose`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Tolerance

Array = NDArray[Any]

# Relative differences of smaller values mean nothing and are not recorded.
RELATIVE_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """Largest differences between an output and its expected values.

    `relative` is measured where |expected| is at least RELATIVE_FLOOR. `excess` is the largest
    amount by which a value exceeds the tolerance.
    """

    absolute: float
    relative: float
    excess: float


def compare(actual: Array, expected: Array, tolerance: Tolerance) -> Difference:
    """Compare two arrays of the same shape; a NaN in either gives a NaN excess."""
    is_float = np.issubdtype(expected.dtype, np.floating)
    absolute, relative = (tolerance.absolute, tolerance.relative) if is_float else (0.0, 0.0)
    got, wanted = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Equal infinities, as in masked logits, differ by 0 and not by NaN.
        gap = np.where(got == wanted, 0.0, np.abs(got - wanted))
        size = np.abs(wanted)
        excess = np.where(gap == 0.0, 0.0, gap - (absolute + relative * size))
    counted = (size >= RELATIVE_FLOOR) & np.isfinite(size)
    return Difference(
        absolute=float(gap.max(initial=0.0)),
        relative=float((gap[counted] / size[counted]).max(initial=0.0)),
        excess=float(excess.max(initial=0.0)),
    )
