"""LeNet-5 with random weights, as export writes it, and a bundle of it."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tests.helpers import onnx_models
from weir.bundle import golden, writer
from weir.bundle.contract import Batching, Contract, Preprocessing, Tolerance
from weir.export.graph import convert
from weir.export.runs.images import INPUT, PROBABILITIES, ImageGraph, ImageOutputs, sharing_of
from weir.export.spec import ExportSpec
from weir.training.models import build

SIDE = 28


class ImageNetwork(NamedTuple):
    """A network, what export makes of it, and its graph as an ONNX file."""

    network: nn.Module
    graph: ImageGraph
    model: bytes


@cache
def lenet5() -> ImageNetwork:
    """LeNet-5 for ten classes, with weights of a fixed seed."""
    torch.manual_seed(0)
    network = build("lenet5", classes=10, height=SIDE, width=SIDE, channels=1).eval()
    graph = ImageGraph(network, [0.13], [0.31]).eval()
    images = torch.randint(0, 256, (3, SIDE, SIDE, 1), dtype=torch.uint8)
    spec = ExportSpec(architecture="lenet5", outputs=ImageOutputs._fields)
    return ImageNetwork(network, graph, convert(graph, {INPUT: images}, spec))


def write_lenet5(models: Path, name: str) -> Path:
    """Write a bundle of `lenet5`, which takes pictures; returns the version's directory."""
    made = lenet5()
    contract = Contract(
        task="image-classification",
        architecture="lenet5",
        batching=Batching(max_rows=8),
        tolerance=Tolerance(absolute=1e-4, relative=1e-4),
        preprocessing=Preprocessing(
            input=INPUT,
            height=SIDE,
            width=SIDE,
            channels=1,
            resize="stretch",
            output=PROBABILITIES,
        ),
        labels={PROBABILITIES: "labels.txt"},
        sharing=sharing_of(made.network, 1, SIDE, SIDE),
    )
    labels = "".join(f"class {number}\n" for number in range(10)).encode()
    recorded = golden.encode(onnx_models.recorded(made.model))
    files = {"model.onnx": made.model, "labels.txt": labels, golden.FILE_NAME: recorded}
    return writer.write(files, contract, models, name, None)
