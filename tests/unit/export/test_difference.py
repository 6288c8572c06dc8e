import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.contract import Tolerance
from weir.export.difference import compare

STRICT = Tolerance(absolute=1e-5, relative=1e-5)


def normal(low: float, high: float) -> st.SearchStrategy[float]:
    # Another library in this process may have set the processor to flush subnormal numbers to zero.
    return st.floats(low, high, allow_subnormal=False)


@given(st.lists(st.tuples(normal(-1e3, 1e3), normal(-1e-4, 1e-4)), min_size=1))
def test_agrees_with_numpy(pairs: list[tuple[float, float]]) -> None:
    expected, gaps = np.array(pairs).T
    actual = expected + gaps

    is_close = bool(np.allclose(actual, expected, rtol=1e-5, atol=1e-5))

    assert (compare(actual, expected, STRICT).excess <= 0.0) == is_close


def test_largest_differences_are_reported() -> None:
    difference = compare(np.array([1.0, 10.5, 0.0]), np.array([1.1, 10.0, 1e-9]), STRICT)

    assert difference.absolute == pytest.approx(0.5)
    assert difference.relative == pytest.approx(0.1 / 1.1)


def test_masked_logits_agree() -> None:
    masked = np.array([-np.inf, 1.0], np.float32)

    assert compare(masked, masked, STRICT).excess == 0.0


@pytest.mark.parametrize(
    ("actual", "expected"),
    [([np.nan], [1.0]), ([1.0], [np.nan]), ([np.nan], [np.nan]), ([np.inf], [-np.inf])],
    ids=["in-graph", "in-network", "in-both", "opposite-infinities"],
)
def test_what_is_no_number_never_passes(actual: list[float], expected: list[float]) -> None:
    difference = compare(np.array(actual), np.array(expected), STRICT)

    assert not difference.excess <= 0.0


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.uint8])
def test_integers_must_be_equal(dtype: type[np.generic]) -> None:
    loose = Tolerance(absolute=10, relative=10)
    zero, one = np.zeros(2, dtype), np.ones(2, dtype)

    assert compare(one, one, loose).excess <= 0.0
    assert compare(zero, one, loose).excess > 0.0


def test_empty_outputs_agree() -> None:
    assert compare(np.zeros((0, 3)), np.zeros((0, 3)), STRICT).excess <= 0.0
