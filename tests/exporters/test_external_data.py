"""Weights beside the graph, as exporters write them, and of more than 2 GiB."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.exporters.conftest import Serve
from tests.integration.harness import tensor

pytestmark = [
    pytest.mark.exporters,
    # What an exporter warns of is between its library and Python.
    pytest.mark.filterwarnings("default"),
]

TOLERANCE = 1e-5
"""Between torch and ONNX Runtime in FP32, which add in another order."""


def version_directory(root: Path, name: str) -> Path:
    directory = root / "models" / name / "1"
    directory.mkdir(parents=True)
    return directory


class Net(torch.nn.Module):
    """A network with a branch that has weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.positive = torch.nn.Linear(40, 64), torch.nn.Linear(64, 48)
        self.negative = torch.nn.Linear(64, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.first(x))

        def positive(inner: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.positive(inner)
            return result

        def negative(inner: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.negative(inner)
            return result

        result: torch.Tensor = torch.cond(x.sum() > 0, positive, negative, (inner,))
        return result


def test_files_of_torch_export_are_served(tmp_path: Path, serve: Serve) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    directory = version_directory(tmp_path, "net")
    torch.onnx.export(module.eval(), (torch.zeros(2, 40),), directory / "model.onnx")
    x = torch.randn(2, 40)

    with serve(tmp_path / "models") as client:
        (answers,) = client.infer("net", tensor("input", x.numpy())).values()

    assert sorted(path.name for path in directory.iterdir()) == ["model.onnx", "model.onnx.data"]
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(answers, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_weights_in_a_branch_are_served(tmp_path: Path, serve: Serve) -> None:
    torch.manual_seed(0)
    module = Net().eval()
    directory = version_directory(tmp_path, "net")
    torch.onnx.export(module, (torch.ones(2, 40),), directory / "model.onnx")
    x = torch.randn(2, 40).abs()

    with serve(tmp_path / "models") as client:
        for sign in (1, -1):
            (answers,) = client.infer("net", tensor("x", (sign * x).numpy())).values()

            with torch.no_grad():
                expected = module(sign * x).numpy()
            np.testing.assert_allclose(answers, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert (directory / "model.onnx.data").exists()


def test_a_file_for_each_tensor_is_served(tmp_path: Path, serve: Serve) -> None:
    weight = np.arange(4096, dtype=np.float32).reshape(64, 64) / 4096
    scale = numpy_helper.from_array(np.full((1, 64), 3, np.float32), "scale")
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["three"], value=scale),
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Mul", ["product", "three"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    directory = version_directory(tmp_path, "net")
    onnx.save_model(
        model,
        directory / "model.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=100,
        convert_attribute=True,
    )
    x = np.eye(64, dtype=np.float32)[:5]

    with serve(tmp_path / "models") as client:
        answers = client.infer("net", tensor("x", x))

    assert len(list(directory.iterdir())) == 3
    np.testing.assert_allclose(answers["y"], 3 * weight[:5], rtol=TOLERANCE)


LARGE_ROWS, SMALL_ROWS, WIDTH = 525_000, 25_000, 1024
"""Tables of 2.15 GB and 0.1 GB; ONNX Runtime takes one of 2 GiB in another way."""


def test_weights_of_more_than_2_gib_are_served(tmp_path: Path, serve: Serve) -> None:
    """The file has holes and takes no room on the disk; the server takes 5 GB of memory."""
    directory = version_directory(tmp_path, "table")
    offset = 4 * WIDTH * SMALL_ROWS
    tables = [("small", SMALL_ROWS, 0), ("large", LARGE_ROWS, offset)]
    with (directory / "weights.bin").open("wb") as file:
        for number, (_, rows, start) in enumerate(tables, 1):
            file.seek(start + 4 * WIDTH * (rows - 1))
            file.write(np.full(WIDTH, number, np.float32).tobytes())
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["small", "row"], ["of_small"]),
            helper.make_node("Gather", ["large", "place"], ["of_large"]),
            helper.make_node("Add", ["of_small", "of_large"], ["y"]),
        ],
        "table",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch"])
            for name in ("row", "place")
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [table(*each) for each in tables],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (directory / "model.onnx").write_bytes(model.SerializeToString())

    with serve(tmp_path / "models") as client:
        answers = client.infer(
            "table",
            tensor("row", np.array([0, SMALL_ROWS - 1])),
            tensor("place", np.array([LARGE_ROWS - 1, LARGE_ROWS - 1])),
        )

    assert (directory / "weights.bin").stat().st_size > 1 << 31
    assert answers["y"][:, -1].tolist() == [2, 3]


def table(name: str, rows: int, offset: int) -> TensorProto:
    length = 4 * WIDTH * rows
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, WIDTH])
    made.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", offset), ("length", length)):
        made.external_data.add(key=key, value=str(value))
    return made
