import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.collate import join, split

DTYPES = ("<f4", "<f2", "<i8", "u1", "?", "O")


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, NDArray[np.generic]]]:
    """Requests of the same tensors, of one to four rows each; every element is unlike the others."""
    dtype = draw(st.sampled_from(DTYPES))
    shapes = draw(st.lists(st.lists(st.integers(0, 3), max_size=2), min_size=1, max_size=3))
    start = 0
    requests = []
    for rows in draw(st.lists(st.integers(1, 4), min_size=1, max_size=6)):
        inputs = {}
        for number, shape in enumerate(shapes):
            size = rows * int(np.prod(shape))
            values = np.arange(start, start + size).astype(dtype).reshape(rows, *shape)
            inputs[f"input {number}"] = values
            start += size
        requests.append(inputs)
    return requests


@given(batches())
def test_split_gives_back_what_was_joined(requests: list[dict[str, NDArray[np.generic]]]) -> None:
    rows = [len(inputs["input 0"]) for inputs in requests]

    parts = split(join(requests), rows)

    assert len(parts) == len(requests)
    for part, inputs in zip(parts, requests, strict=True):
        assert part.keys() == inputs.keys()
        for name, array in inputs.items():
            assert part[name].dtype == array.dtype
            np.testing.assert_array_equal(part[name], array)


def test_rows_lie_one_below_the_other() -> None:
    first, second = np.array([[1, 2]]), np.array([[3, 4], [5, 6]])

    joined = join([{"x": first}, {"x": second}])

    np.testing.assert_array_equal(joined["x"], [[1, 2], [3, 4], [5, 6]])


def test_one_request_is_not_copied() -> None:
    array = np.zeros((2, 3))

    assert join([{"x": array}])["x"] is array


def test_parts_are_views() -> None:
    output = np.zeros((3, 2))

    parts = split({"y": output}, [1, 2])

    assert all(np.shares_memory(part["y"], output) for part in parts)


@pytest.mark.parametrize("rows", [1, 2, 4], ids="{} rows answered for 3".format)
def test_output_of_another_number_of_rows_is_never_cut(rows: int) -> None:
    """Cut all the same, one caller would get another's rows, or none."""
    with pytest.raises(ValueError, match=rf"output 'y': expected 3 rows, got {rows}"):
        split({"y": np.zeros((rows, 2))}, [1, 2])
