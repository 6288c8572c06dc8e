"""How far two arrays are apart, and whether that is too far.

Two numbers agree when |actual - expected| <= absolute + relative * |expected|, as in `numpy.allclose`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Tolerance

Array = NDArray[Any]

# Nearer to zero than this, a relative difference says nothing and is not recorded.
RELATIVE_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output is from what was expected.

    `absolute` and `relative` are the largest of their kind (`relative` where |expected| is at
    least RELATIVE_FLOOR), `excess` the largest by which a value passes the tolerance.
    """

    absolute: float
    relative: float
    excess: float


def compare(actual: Array, expected: Array, tolerance: Tolerance) -> Difference:
    """Compare two arrays of one shape; a NaN on either side gives a NaN excess."""
    is_float = np.issubdtype(expected.dtype, np.floating)
    absolute, relative = (tolerance.absolute, tolerance.relative) if is_float else (0.0, 0.0)
    got, wanted = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Equal infinities, as masked logits hold them, differ by nothing, not by NaN.
        gap = np.where(got == wanted, 0.0, np.abs(got - wanted))
        size = np.abs(wanted)
        excess = np.where(gap == 0.0, 0.0, gap - (absolute + relative * size))
    counted = (size >= RELATIVE_FLOOR) & np.isfinite(size)
    return Difference(
        absolute=float(gap.max(initial=0.0)),
        relative=float((gap[counted] / size[counted]).max(initial=0.0)),
        excess=float(excess.max(initial=0.0)),
    )
