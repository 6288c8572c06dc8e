import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.server.runtime import reshape
from weir.server.runtime.reshape import ShapeError
from weir.server.runtime.signature import Axis, TensorSpec


def test_free_sizes_keep_their_order_into_the_graph_and_back() -> None:
    spec = TensorSpec("x", "FP32", ("batch", 2, 4, None, 6), reshape=(-1, 8, -1, 1, 6))
    sent = np.arange(3 * 2 * 4 * 5 * 6, dtype=np.float32).reshape(3, 2, 4, 5, 6)

    taken = reshape.to_graph({"x": spec}, {"x": sent, "other": sent})
    given = reshape.to_request({"x": spec}, {"x": taken["x"], "other": sent})

    assert taken["x"].shape == (3, 8, 5, 1, 6)
    assert taken["other"] is given["other"] is sent
    np.testing.assert_array_equal(given["x"], sent)


@given(st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3), st.data())
def test_reshape_is_that_of_numpy(blocks: list[list[int]], data: st.DataObject) -> None:
    """Blocks of fixed sizes, with an axis of any size between two of them."""
    sent: list[int] = []
    axes: list[Axis] = []
    inside: list[int] = []
    shape: list[int] = []
    for place, block in enumerate(blocks):
        if place:
            size = data.draw(st.integers(0, 3))
            sent.append(size)
            shape.append(size)
            axes.append(None)
            inside.append(-1)
        sent += block
        axes += block
        inside += [math.prod(block)] if data.draw(st.booleans()) else [1, *reversed(block)]
        shape += inside[len(shape) :]
    spec = TensorSpec("x", "FP32", tuple(axes), reshape=tuple(inside))
    array = np.arange(math.prod(sent), dtype=np.float32).reshape(sent)

    taken = reshape.to_graph({"x": spec}, {"x": array})["x"]

    np.testing.assert_array_equal(taken, array.reshape(shape))
    np.testing.assert_array_equal(reshape.to_request({"x": spec}, {"x": taken})["x"], array)


def test_scalar_is_one_element() -> None:
    spec = TensorSpec("x", "INT64", (1,), reshape=())

    assert reshape.to_graph({"x": spec}, {"x": np.array([7])})["x"].shape == ()
    assert reshape.to_request({"x": spec}, {"x": np.array(7)})["x"].tolist() == [7]


def test_text_stays_text() -> None:
    spec = TensorSpec("x", "BYTES", (1,), reshape=())

    given = reshape.to_request({"x": spec}, {"x": np.array("word", object)})["x"]

    assert given.dtype == object and given.tolist() == ["word"]


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4), (6,)], ids=str)
def test_output_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    spec = TensorSpec("y", "FP32", ("batch", 3), reshape=(-1, 1, 3))

    with pytest.raises(ShapeError, match=r"output 'y': expected shape \[-1, 1, 3\] of the graph"):
        reshape.to_request({"y": spec}, {"y": np.zeros(shape, np.float32)})
