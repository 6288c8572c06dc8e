"""A file of torch whose batch is fixed, and the export that the message asks for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from weir.bundle.reader import read
from weir.export.errors import ExportError
from weir.export.onnx_import.publishing import import_onnx
from weir.export.onnx_import.spec import ImportSpec, Pictures

# What torch's exporter warns of is between torch and Python.
pytestmark = [pytest.mark.exporters, pytest.mark.filterwarnings("ignore")]


class Flattening(nn.Module):
    """Scores (B, 5) of pictures (B, 3, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 4, 3, stride=16)
        self.project = nn.Linear(16, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.project(self.convolve(pixels).flatten(1))
        return scores


class Adding(nn.Module):
    """The sum (B, 4) of two tensors (B, 2, 2)."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (left + right).flatten(1)


@pytest.mark.parametrize(
    ("network", "shapes", "spec"),
    [
        (Flattening(), [(1, 3, 32, 32)], ImportSpec(pictures=Pictures(input="pixels"))),
        (Adding(), [(1, 2, 2), (1, 2, 2)], ImportSpec(is_batched=True)),
    ],
    ids=["pictures", "two-inputs"],
)
def test_export_that_the_message_asks_for_is_imported(
    tmp_path: Path, network: nn.Module, shapes: list[tuple[int, ...]], spec: ImportSpec
) -> None:
    file = tmp_path / "net.onnx"
    examples = tuple(map(torch.ones, shapes))
    torch.onnx.export(network.eval(), examples, file, verbose=False)

    with pytest.raises(ExportError, match="the file fixes its batch at 1") as caught:
        import_onnx(file, spec, to=tmp_path / "models")

    _, _, written = str(caught.value).removesuffix(")").partition("dynamic_shapes=")
    times = " * 2" if len(shapes) > 1 else ""
    assert written == f"[{{0: torch.export.Dim.DYNAMIC}}]{times}"
    free = [{0: torch.export.Dim.DYNAMIC}] * len(shapes)
    torch.onnx.export(network, examples, file, dynamic_shapes=free, verbose=False)
    bundle = read(import_onnx(file, spec, to=tmp_path / "models").path)
    assert bundle.contract.batch_axis == "batch"
