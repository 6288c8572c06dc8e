"""A model repository in Triton's layout, served unchanged to `tritonclient`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto

from tests.helpers import onnx_models
from tests.integration.harness import Server, running
from tests.integration.triton_client import as_input, error_of

COLOURS = """
# Pictures, and a name for each class.
name: "colours"
platform: "onnxruntime_onnx"
max_batch_size: 16
default_model_filename: "colours.onnx"
input [
  {
    name: "image"
    data_type: TYPE_UINT8
    format: FORMAT_NHWC
    dims: [ 8, 8, 3 ]
  }
]
output [
  {
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ 3 ]
    label_filename: "colours.txt"
  }
]
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
optimization { execution_accelerators {
  gpu_execution_accelerator : [ { name : "tensorrt" } ]
} }
model_warmup [ { name: "zeros" batch_size: 1 inputs { key: "image" value: { zero_data: true } } } ]
"""
SUM_OF_STEPS = """
backend: "onnxruntime"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] }
output { name: "y" data_type: TYPE_FP32 }
parameters: { key: "intra_op_thread_count" value: { string_value: "1" } }
"""
FREE = """
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "x", data_type: TYPE_FP32, dims: [ 3 ] } ]
output [ { name: "y", data_type: TYPE_FP32, dims: [ -1 ] } ]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("triton")
    graphs = {
        "colours": (onnx_models.colours(), COLOURS),
        "sum_of_steps": (onnx_models.without_rows(), SUM_OF_STEPS),
        # Neither axis says that it is the batch's.
        "free": (onnx_models.echo(TensorProto.FLOAT, (None, "width")), FREE),
    }
    for name, (graph, config) in graphs.items():
        onnx_models.write_plain(root, name, graph)
        (root / name / "config.pbtxt").write_text(config)
    (root / "colours" / "colours.txt").write_text("red\ngreen\nblue\n")
    version = root / "colours" / "1"
    (version / "model.onnx").rename(version / "colours.onnx")
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    with running(repository, tmp_path_factory.mktemp("log") / "log") as server:
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()}"
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.target) as client:
        yield client


def test_every_model_is_ready(client: Any) -> None:
    index = client.get_model_repository_index().models

    assert {model.name: model.state for model in index} == dict.fromkeys(
        ("colours", "sum_of_steps", "free"), "READY"
    )
    assert all(client.is_model_ready(model.name) for model in index)


def test_metadata_has_whole_shapes(client: Any) -> None:
    colours, sum_of_steps, free = (
        client.get_model_metadata(name, as_json=True)["inputs"]
        for name in ("colours", "sum_of_steps", "free")
    )

    assert colours == [{"name": "image", "datatype": "UINT8", "shape": ["-1", "8", "8", "3"]}]
    assert sum_of_steps[0]["shape"] == ["-1", "2"]
    assert free[0]["shape"] == ["-1", "3"]


def test_config_is_what_the_file_says(client: Any) -> None:
    colours, sum_of_steps, free = (
        client.get_model_config(name, as_json=True)["config"]
        for name in ("colours", "sum_of_steps", "free")
    )

    assert colours["max_batch_size"] == 16
    assert colours["default_model_filename"] == "colours.onnx"
    assert colours["input"] == [
        {
            "name": "image",
            "data_type": "TYPE_UINT8",
            "format": "FORMAT_NHWC",
            "dims": ["8", "8", "3"],
        }
    ]
    assert colours["output"][0]["label_filename"] == "colours.txt"
    assert colours["instance_group"][0]["count"] == 2
    assert colours["dynamic_batching"]["max_queue_delay_microseconds"] == "100"
    assert sum_of_steps.get("max_batch_size", 0) == 0
    assert sum_of_steps["input"][0]["dims"] == ["-1", "2"]
    assert (free["max_batch_size"], free["input"][0]["dims"]) == (4, ["3"])


def test_classes_have_the_labels_of_the_file(client: Any) -> None:
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    # A red and a blue one.
    pictures[0, ..., 0], pictures[0, ..., 1] = 3, 1
    pictures[1, ..., 2], pictures[1, ..., 0] = 3, 1
    best = triton.InferRequestedOutput("probabilities", class_count=2)

    answer = client.infer("colours", [as_input("image", pictures)], outputs=[best])

    assert answer.as_numpy("probabilities").tolist() == [
        [b"0.750000:0:red", b"0.250000:1:green"],
        [b"0.750000:2:blue", b"0.250000:0:red"],
    ]


def test_models_without_rows_and_of_any_size_answer(client: Any) -> None:
    steps, rows = np.ones((3, 2), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)

    total = client.infer("sum_of_steps", [as_input("x", steps)])
    echo = client.infer("free", [as_input("x", rows)])

    assert total.as_numpy("y") == 6.0
    np.testing.assert_array_equal(echo.as_numpy("y"), rows)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        ("free", (5, 3), "at most 4 rows in a request, got 5"),
        ("free", (1, 4), "axis 1: expected 3, got 4"),
        ("sum_of_steps", (3, 4), "axis 1: expected 2, got 4"),
    ],
    ids=["rows", "dims", "shape"],
)
def test_requests_are_checked_against_the_file(
    client: Any, model: str, shape: tuple[int, ...], expected: str
) -> None:
    values = as_input("x", np.zeros(shape, np.float32))

    status, message = error_of(lambda: client.infer(model, [values]))

    assert status == "StatusCode.INVALID_ARGUMENT"
    assert expected in message


def test_fields_without_effect_are_in_the_log(server: Server) -> None:
    # On a machine with one core there is a warning about two instances, too.
    lines = server.log().splitlines()
    warnings = [line for line in lines if "WARNING weir.server.repository.triton" in line]

    assert len(warnings) == 3, warnings
    assert (
        "model=colours fields=instance_group.gpus, "
        "dynamic_batching.preferred_batch_size, optimization.execution_accelerators, model_warmup"
    ) in server.log()
    assert "model=colours instance_group.kind=KIND_GPU provider=cpu" in server.log()
    assert "model=sum_of_steps fields=parameters" in server.log()
