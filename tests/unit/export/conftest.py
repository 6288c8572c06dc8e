"""Small networks to export, and a run that training really wrote."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from weir.bundle.reader import Bundle, read
from weir.export import graph
from weir.export.graph import convert
from weir.export.runs.publishing import publish_run
from weir.export.spec import ExportSpec
from weir.training.__main__ import main as train

ROOT = Path(__file__).parents[3]


class Linear(nn.Module):
    """logits (B, 3) of x (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.project(x)
        return logits


@pytest.fixture(scope="session", autouse=True)
def uncached_operators() -> Iterator[Callable[..., ONNXRegistry]]:
    """Cache torch's table of operators, and return the function that builds it.

    torch parses the source of 500 operators in each export: 40 % of the time of a small one.
    """
    build = ONNXRegistry.from_torchlib
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(build)))
        yield build


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Linear().eval()


@pytest.fixture(scope="session")
def examples() -> dict[str, Tensor]:
    return {"x": torch.randn(5, 4, generator=torch.Generator().manual_seed(1))}


@pytest.fixture(scope="session")
def spec() -> ExportSpec:
    return ExportSpec(architecture="linear", outputs=["logits"])


@pytest.fixture(scope="session")
def model(network: nn.Module, examples: dict[str, Tensor], spec: ExportSpec) -> bytes:
    """The network as an ONNX file."""
    return convert(network.eval(), examples, spec)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5 after one epoch of digits."""
    run = tmp_path_factory.mktemp("runs") / "lenet5"
    assert train(["lenet5", "--data", "digits", "--epochs", "1", "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def run_bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of the run, in FP32."""
    return read(publish_run(run, to=tmp_path_factory.mktemp("models")).path)


@pytest.fixture
def reuse_graph(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Replace the export by an earlier export of the same network; the parity gate still runs."""
    return lambda model: monkeypatch.setattr(graph, "convert", lambda *_: model)


@pytest.fixture
def python() -> Callable[..., list[str]]:
    """A command line of this interpreter."""
    return lambda *args: [sys.executable, "-W", "error", *map(str, args)]


@pytest.fixture
def environment() -> dict[str, str]:
    """For subprocesses, which must find the project installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
