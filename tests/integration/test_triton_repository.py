"""A model repository in Triton's layout, served unchanged to `tritonclient`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from tests.helpers import onnx_models
from tests.integration.harness import Server, running

PROGRAM = Path(__file__).with_name("triton_repository.py")

INVALID = "StatusCode.INVALID_ARGUMENT"

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
def seen(server: Server) -> dict[str, Any]:
    """The client's results."""
    result = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, server.target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answers: dict[str, Any] = json.loads(result.stdout)
    return answers


def test_every_model_is_ready(seen: dict[str, Any]) -> None:
    assert seen["ready"] == {"colours": True, "sum_of_steps": True, "free": True}
    assert {model["state"] for model in seen["index"]} == {"READY"}


def test_metadata_has_whole_shapes(seen: dict[str, Any]) -> None:
    metadata = seen["metadata"]

    assert metadata["colours"]["inputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": ["-1", "8", "8", "3"]}
    ]
    assert metadata["sum_of_steps"]["inputs"][0]["shape"] == ["-1", "2"]
    assert metadata["free"]["inputs"][0]["shape"] == ["-1", "3"]


def test_config_is_what_the_file_says(seen: dict[str, Any]) -> None:
    colours, free = seen["config"]["colours"], seen["config"]["free"]

    assert colours["max_batch_size"] == 16
    assert colours["default_model_filename"] == "colours.onnx"
    assert colours["input"] == [
        {"name": "image", "data_type": "TYPE_UINT8", "dims": ["8", "8", "3"]}
    ]
    assert colours["output"][0]["label_filename"] == "colours.txt"
    assert colours["instance_group"][0]["count"] == 2
    assert colours["dynamic_batching"]["max_queue_delay_microseconds"] == "100"
    assert seen["config"]["sum_of_steps"].get("max_batch_size", 0) == 0
    assert seen["config"]["sum_of_steps"]["input"][0]["dims"] == ["-1", "2"]
    assert (free["max_batch_size"], free["input"][0]["dims"]) == (4, ["3"])


def test_classes_have_the_labels_of_the_file(seen: dict[str, Any]) -> None:
    assert seen["classes"] == [
        ["0.750000:0:red", "0.250000:1:green"],
        ["0.750000:2:blue", "0.250000:0:red"],
    ]


def test_models_answer(seen: dict[str, Any]) -> None:
    assert seen["sum"] == 6.0
    assert seen["free"] == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_requests_are_checked_against_the_file(seen: dict[str, Any]) -> None:
    refused = seen["refused"]

    assert {status for status, _ in refused.values()} == {INVALID}
    assert "at most 4 rows in a request, got 5" in refused["rows"][1]
    assert "axis 1: expected 3, got 4" in refused["dims"][1]
    assert "axis 1: expected 2, got 4" in refused["shape"][1]


def test_fields_without_effect_are_in_the_log(server: Server, seen: dict[str, Any]) -> None:
    warnings = [line for line in server.log().splitlines() if "WARNING" in line]

    assert len(warnings) == 3, warnings
    assert (
        "model=colours fields=input.format, instance_group.gpus, "
        "dynamic_batching.preferred_batch_size, optimization.execution_accelerators, model_warmup"
    ) in server.log()
    assert "model=colours instance_group.kind=KIND_GPU provider=cpu" in server.log()
    assert "model=sum_of_steps fields=parameters" in server.log()
