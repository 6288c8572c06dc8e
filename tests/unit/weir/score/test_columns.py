"""Arrow columns and arrays; numpy and plain lists are the oracle."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.client.errors import UsageError
from weir.score import columns
from weir.server.runtime.signature import TensorSpec

VALUES = np.arange(24).reshape(4, 2, 3)


def spec(datatype: str = "FP32", axes: tuple[Any, ...] = ("batch", 2, 3)) -> TensorSpec:
    return TensorSpec("x", datatype, axes)


def nested(array: np.ndarray[Any, Any], *, fixed: bool = False) -> pa.Array:
    kind = pa.from_numpy_dtype(array.dtype)
    for size in reversed(array.shape[1:]):
        kind = pa.list_(kind, size) if fixed else pa.list_(kind)
    return pa.array(array.tolist(), kind)


COLUMNS = {
    "nested lists": nested(VALUES),
    "nested fixed lists": nested(VALUES.astype(np.float32), fixed=True),
    "flat lists": nested(VALUES.reshape(4, 6)),
    "large lists": pa.array(VALUES.reshape(4, 6).tolist(), pa.large_list(pa.int8())),
    "doubles": nested(VALUES.astype(np.float64)),
    "fixed bytes": pa.array([row.astype("<f4").tobytes() for row in VALUES], pa.binary(24)),
    "bytes": pa.array([row.astype("<f4").tobytes() for row in VALUES], pa.binary()),
    "large bytes": pa.array([row.astype("<f4").tobytes() for row in VALUES], pa.large_binary()),
}


@pytest.mark.parametrize("form", COLUMNS)
@pytest.mark.parametrize(
    "part", [slice(0, 4), slice(1, 3), slice(2, 2)], ids=["all", "cut", "none"]
)
def test_whole_column_and_single_cells_are_the_same_values(form: str, part: slice) -> None:
    column = COLUMNS[form][part]

    block = columns.block(column, spec(), (2, 3))

    assert block is not None and block.dtype == np.float32
    assert np.array_equal(block, VALUES[part])
    for position in range(len(column)):
        cell = columns.cell(column, position, spec(), (2, 3))
        assert np.array_equal(cell, VALUES[part][position][None])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([None], pa.list_(pa.float32())), "got null"),
        (pa.array([[1.0, None, 1, 1, 1, 1]]), "expected numbers"),
        (pa.array([[1.0]]), r"expected the shape \[2, 3\], got \[1\]"),
        (pa.array([[[1, 2, 3], [4]]]), "equal lengths"),
        (pa.array([b"1234"]), "expected 24 bytes, got 4 bytes"),
    ],
)
def test_cell_that_does_not_fit_is_no_part_of_a_block(column: pa.Array, message: str) -> None:
    assert columns.block(column, spec(), (2, 3)) is None
    with pytest.raises(ValueError, match=message):
        columns.cell(column, 0, spec(), (2, 3))


@pytest.mark.parametrize("value", [256, -1])
def test_integer_that_the_input_cannot_hold_is_refused(value: int) -> None:
    column = pa.array([[value]])

    assert columns.block(column, spec("UINT8", ("batch", 1)), (1,)) is None
    with pytest.raises(ValueError, match="cannot hold"):
        columns.cell(column, 0, spec("UINT8", ("batch", 1)), (1,))


@pytest.mark.parametrize(
    ("datatype", "kind", "fits"),
    [
        ("FP32", pa.list_(pa.int64()), True),
        ("INT64", pa.list_(pa.float32()), False),
        ("INT64", pa.int8(), True),
        ("BOOL", pa.bool_(), True),
        ("BOOL", pa.int8(), False),
        ("FP32", pa.string(), False),
        ("BYTES", pa.list_(pa.string()), True),
        ("BYTES", pa.int8(), False),
        ("UINT8", pa.binary(784), True),
    ],
)
def test_columns_types_are_checked_before_a_row_is_read(
    datatype: str, kind: pa.DataType, *, fits: bool
) -> None:
    if fits:
        columns.check_column("x", "c", spec(datatype), kind)
    else:
        with pytest.raises(
            UsageError, match=f"input 'x': expected values of {datatype}, column 'c'"
        ):
            columns.check_column("x", "c", spec(datatype), kind)


@pytest.mark.parametrize("axes", [(), (2,), (2, 3), (None,), ("time", 3), (2, None)])
def test_outputs_become_lists_of_their_shape(axes: tuple[Any, ...]) -> None:
    shape = tuple(axis if isinstance(axis, int) else 3 for axis in axes)
    array = np.arange(4 * int(np.prod(shape)), dtype=np.int64).reshape(4, *shape)
    kind = columns.cell_type(spec("INT64", ("batch", *axes)), axes)

    column = columns.to_column(array, kind)

    assert column.type == kind
    assert column.to_pylist() == array.tolist()


def test_texts_of_an_output_are_strings() -> None:
    array = np.array([b"ab", "é".encode(), b"\xff"], object)

    assert columns.to_column(array, pa.string()).to_pylist() == ["ab", "é", "\\xff"]


def test_class_without_a_label_is_its_number() -> None:
    labels = pa.array(["a", "b"])

    assert columns.labels_of(np.array([1, 0, 2]), labels).to_pylist() == ["b", "a", "2"]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8))
def test_lists_of_lengths(rows: list[list[int]]) -> None:
    flat = pa.array([value for row in rows for value in row], pa.int64())

    assert columns.lists_of(flat, np.array([len(row) for row in rows], np.intp)).to_pylist() == rows
