from pathlib import Path

import numpy as np
import pytest

from weir.cli.inputs import parse_inputs
from weir.client.errors import UsageError
from weir.client.results import ModelMetadata, TensorMetadata


def model(**tensors: str) -> ModelMetadata:
    inputs = tuple(TensorMetadata(name, kind, (-1,)) for name, kind in tensors.items())
    return ModelMetadata("m", ("1",), "p", inputs, ())


ONE = model(x="UINT8")
TWO = model(x="FP32", words="BYTES")


@pytest.mark.parametrize("text", ["x=[1, 2]", "[1, 2]"])
def test_json_becomes_an_array_of_the_models_datatype(text: str) -> None:
    array = parse_inputs([text], ONE)["x"]

    assert array.dtype == np.uint8 and array.tolist() == [1, 2]


def test_several_inputs_go_by_name() -> None:
    arrays = parse_inputs(['words=["a=b", "ü"]', "x=[[1], [2]]"], TWO)

    assert arrays["words"].tolist() == ["a=b", "ü"]
    assert arrays["x"].shape == (2, 1) and arrays["x"].dtype == np.float32


@pytest.mark.parametrize("form", ["x={}", "{}"])
def test_a_file_keeps_its_own_dtype(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(3, dtype=np.int16))

    assert parse_inputs([form.format(path)], ONE)["x"].dtype == np.int16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=[300]", "does not fit UINT8"),
        ("x=[1.5]", "does not fit UINT8"),
        ("x=[-1]", "does not fit UINT8"),
        ("x=[NaN]", "does not fit UINT8"),
        ('x=["a"]', "expected UINT8"),
        ("x=[[1], 2]", "expected a .npy file or a JSON array"),
        ("x=[null]", "expected UINT8"),
        ("x=hello", "expected a .npy file or a JSON array"),
        ("nofile.npy", "No such file"),
    ],
)
def test_what_is_no_such_array_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_inputs([text], ONE)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="of x, words"):
        parse_inputs(["y=[1]"], TWO)


def test_an_input_is_given_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_inputs(["[1]", "x=[2]"], ONE)


def test_a_file_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)

    with pytest.raises(UsageError, match="allow_pickle=False"):
        parse_inputs([str(path)], ONE)
