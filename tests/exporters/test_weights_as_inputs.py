"""A network that torch.onnx exports with its weights as inputs; ONNX Runtime takes other values.

So does Weir: a weight is left out or sent, and metadata has those that a config.pbtxt describes.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray

from tests.integration.harness import Server, running

pytestmark = [
    pytest.mark.exporters,
    # What an exporter warns of is between its library and Python.
    pytest.mark.filterwarnings("default"),
]

Array = NDArray[Any]

CONFIG = """
max_batch_size: 0
input [
  { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] },
  { name: "hidden" data_type: TYPE_FP32 dims: [ 4 ] optional: true }
]
"""


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x + self.hidden)
        return result


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network twice: as it is, and described by a config.pbtxt."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name in ("plain", "described"):
        (root / name / "1").mkdir(parents=True)
        torch.onnx.export(
            Network().eval(),
            (torch.zeros(2, 4),),
            root / name / "1" / "model.onnx",
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            keep_initializers_as_inputs=True,
            dynamo=False,
        )
    (root / "described" / "config.pbtxt").write_text(CONFIG)
    return root


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(models, tmp_path_factory.mktemp("log") / "log") as server:
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()}"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.target) as client:
        yield client


def infer(client: Any, model: str, inputs: dict[str, Array]) -> Array:
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    answer: Array = client.infer(model, tensors).as_numpy("y")
    return answer


@pytest.mark.parametrize("model", ["plain", "described"])
def test_weights_are_left_out_or_sent(client: Any, models: Path, model: str) -> None:
    session = onnxruntime.InferenceSession(models / model / "1" / "model.onnx")
    generator = np.random.default_rng(0)
    x, hidden = (generator.random(shape, np.float32) for shape in ((3, 4), (4,)))
    weight = generator.random((3, 4), np.float32)
    requests: list[dict[str, Array]] = [
        {"x": x},
        {"x": x, "hidden": hidden},
        {"layer.weight": weight, "hidden": hidden, "x": x},
    ] * 8

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda inputs: infer(client, model, inputs), requests))

    for inputs, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer, session.run(["y"], inputs)[0], rtol=1e-6)


def test_metadata_has_the_weights_that_are_described(client: Any, server: Server) -> None:
    inputs = {
        model: [one.name for one in client.get_model_metadata(model).inputs]
        for model in ("plain", "described")
    }

    assert inputs == {"plain": ["x"], "described": ["x", "hidden"]}
    assert "batch axis proved model=plain" in server.log()
