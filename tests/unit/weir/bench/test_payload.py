import numpy as np
import pytest

from weir.bench.payload import complete, parse_shapes, row_count
from weir.client.errors import UsageError
from weir.client.results import ModelMetadata, TensorMetadata
from weir.protocol.datatypes import DATATYPES


def model(*tensors: TensorMetadata) -> ModelMetadata:
    return ModelMetadata("m", ("1",), "p", tensors, ())


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_data_of_every_datatype_can_be_made_up(datatype: str) -> None:
    metadata = model(TensorMetadata("x", datatype, (-1, 3)))

    array = complete({}, metadata, rows=5, shapes={}, seed=0)["x"]

    assert array.shape == (5, 3) and array.dtype == DATATYPES[datatype].dtype


def test_the_seed_decides_the_data() -> None:
    metadata = model(TensorMetadata("x", "FP32", (-1, 3)))

    def made(seed: int) -> bytes:
        return complete({}, metadata, rows=1, shapes={}, seed=seed)["x"].tobytes()

    assert made(1) == made(1) != made(2)


def test_given_arrays_are_taken_as_they_are() -> None:
    metadata = model(TensorMetadata("x", "FP32", (-1, 3)), TensorMetadata("y", "INT64", (-1,)))
    given = np.zeros((7, 3), "f4")

    arrays = complete({"x": given}, metadata, rows=7, shapes={}, seed=0)

    assert arrays["x"] is given and arrays["y"].shape == (7,)
    assert row_count(arrays, metadata) == 7


@pytest.mark.parametrize("dimensions", [(28, 1), (4, 28, 1)], ids=["without rows", "with rows"])
def test_variable_axes_take_the_sizes_given(dimensions: tuple[int, ...]) -> None:
    metadata = model(TensorMetadata("x", "UINT8", (-1, -1, 1)))

    assert complete({}, metadata, rows=4, shapes={"x": dimensions}, seed=0)["x"].shape == (4, 28, 1)


def test_variable_axes_without_a_size_are_an_error() -> None:
    metadata = model(TensorMetadata("x", "UINT8", (-1, -1, 1)))

    with pytest.raises(UsageError, match="--shape x:N,N"):
        complete({}, metadata, rows=1, shapes={}, seed=0)


def test_a_model_without_rows_gets_one_request_of_its_own_shape() -> None:
    metadata = model(TensorMetadata("x", "FP32", (2, 3)), TensorMetadata("s", "FP32", ()))

    arrays = complete({}, metadata, rows=9, shapes={}, seed=0)

    assert arrays["x"].shape == (2, 3) and arrays["s"].shape == ()
    assert row_count(arrays, metadata) == 1


def test_an_unknown_input_is_named() -> None:
    with pytest.raises(UsageError, match="no input 'z'"):
        complete({}, model(), rows=1, shapes={"z": (1,)}, seed=0)


def test_shapes_are_read() -> None:
    assert parse_shapes(["x:28,28,1", "a:b:3"]) == {"x": (28, 28, 1), "a:b": (3,)}


@pytest.mark.parametrize("text", ["x", "x:", ":3", "x:a", "x:0", "x:3,-1"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME:28,28,1"):
        parse_shapes([text])
