"""`torch.onnx.export` with its defaults, `weir serve FILE`, and an answer by `tritonclient`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tritonclient import grpc as triton

from tests.integration.harness import running

pytestmark = [
    pytest.mark.exporters,
    # What an exporter warns of is between its library and Python.
    pytest.mark.filterwarnings("default"),
]

TOLERANCE = 1e-5
"""Between torch and ONNX Runtime in FP32, which add in another order."""

X = torch.linspace(-1, 1, 80).reshape(2, 40)


def export(path: Path, seed: int) -> NDArray[np.float32]:
    """Write a network with its weights beside it; the outputs of `X`."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    torch.onnx.export(module.eval(), (torch.zeros(2, 40),), path)
    with torch.no_grad():
        outputs: NDArray[np.float32] = module(X).numpy()
    return outputs


def answer(client: triton.InferenceServerClient, name: str) -> NDArray[np.float32]:
    (declared,) = client.get_model_metadata(name).inputs
    inputs = triton.InferInput(declared.name, list(X.shape), declared.datatype)
    inputs.set_data_from_numpy(X.numpy())
    result = client.infer(name, [inputs])
    outputs: NDArray[np.float32] = result.as_numpy(result.get_response().outputs[0].name)
    return outputs


@pytest.mark.parametrize(
    ("path", "name"), [("model.onnx", "work"), ("net.onnx", "net"), ("", "work")]
)
def test_file_is_served_as_torch_wrote_it(tmp_path: Path, path: str, name: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    expected = export(work / (path or "model.onnx"), seed=0)

    with (
        running(work / path, tmp_path / "log") as server,
        triton.InferenceServerClient(server.target) as client,
    ):
        np.testing.assert_allclose(answer(client, name), expected, rtol=TOLERANCE, atol=TOLERANCE)

    assert len(list(work.iterdir())) == 2, "the weights are beside the graph"


def test_newer_export_replaces_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    export(path, seed=0)
    flags = ("--model-control", "poll", "--poll-interval-s", "0.1")

    with (
        running(path, tmp_path / "log", *flags) as server,
        triton.InferenceServerClient(server.target) as client,
    ):
        expected = export(path, seed=1)
        # Between the writes of graph and weights, a scan may find weights that do not fit.
        while not np.allclose(answer(client, "net"), expected, rtol=TOLERANCE, atol=TOLERANCE):
            pass
