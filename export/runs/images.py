"""Export of image runs: the network with its normalisation, and the contract of a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from weir.bundle.contract import Preprocessing, Sharing
from weir.export.int8 import CALIBRATION_ROWS, StaticInt8
from weir.export.runs.provenance import data_name, describe_random, provenance_of
from weir.export.spec import ExportSpec, RunExport
from weir.training.errors import TrainingError
from weir.training.images.experiment import load_data, load_model
from weir.training.run_directory import ImageRecord, RunRecord, part_of
from weir.training.weight_sharing import count_sharing

INPUT = "image"
LOGITS, PROBABILITIES = "logits", "probabilities"


class ImageOutputs(NamedTuple):
    """logits (B, classes) of the network, and their softmax."""

    logits: Tensor
    probabilities: Tensor


def sharing_of(network: nn.Module, channels: int, height: int, width: int) -> Sharing:
    """Count parameters and connections of an image network, before export folds layers."""
    layers = count_sharing(network, (channels, height, width))
    return Sharing(
        parameters=sum(layer.parameters for layer in layers),
        connections=sum(layer.connections for layer in layers),
    )


class ImageGraph(nn.Module):
    """An image network with normalisation inside, so that clients send plain pixels.

    Args:
        network: takes float32 (B, C, H, W), normalised; returns logits (B, classes).
        mean, std: of each channel, on the scale 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, image: Tensor) -> ImageOutputs:
        """Classify images, uint8 (B, H, W, C)."""
        # Channels first, then normalisation: with channels last, ONNX Runtime broadcasts mean and
        # std over one pixel at a time, which took 60 % of a run of LeNet-5. The order of the
        # arithmetic is the same, and so are the bits.
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)  # (B, C, H, W)
        logits = self.network((pixels / 255 - self.mean) / self.std)  # (B, classes)
        return ImageOutputs(logits=logits, probabilities=torch.softmax(logits, dim=-1))


_EXAMPLE_ROWS = 64
_CALIBRATION_SEED = 0


def load(run: Path, record: RunRecord) -> RunExport:
    """Load the network and test pictures, or random pictures without the data."""
    image = part_of(record, ImageRecord)
    trained = load_model(run)
    network = ImageGraph(trained, image.mean, image.std)
    sharing = sharing_of(trained, image.channels, image.height, image.width)
    try:
        images = load_data(record, "test").images
    except TrainingError as error:
        described = describe_random(record, error)
        shape = (_EXAMPLE_ROWS, image.height, image.width, image.channels)
        generator = torch.Generator().manual_seed(0)
        random = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return RunExport(network, {INPUT: random}, _spec(record, described, sharing))
    # Spread over the set, since some sets are sorted by class.
    rows = np.linspace(0, len(images) - 1, min(_EXAMPLE_ROWS, len(images)), dtype=np.int64)
    spec = _spec(record, f"test pictures of {data_name(record)}", sharing)
    return RunExport(network, {INPUT: torch.from_numpy(images[rows])}, spec)


def int8_settings(_run: Path, record: RunRecord, max_drop: float) -> StaticInt8:
    """Training pictures to calibrate with, drawn from a fixed seed, and the whole test set."""
    train, test = load_data(record, "train"), load_data(record, "test")
    order = np.random.default_rng(_CALIBRATION_SEED).permutation(len(train.images))
    rows = np.sort(order[:CALIBRATION_ROWS])
    return StaticInt8(
        calibration={INPUT: train.images[rows]},
        calibration_from=f"training pictures of {data_name(record)}, seed {_CALIBRATION_SEED}",
        test={INPUT: test.images},
        test_from=f"test pictures of {data_name(record)}",
        answers=test.labels,
        output=LOGITS,
        max_drop=max_drop,
    )


def _spec(record: RunRecord, examples: str, sharing: Sharing) -> ExportSpec:
    image = part_of(record, ImageRecord)
    return ExportSpec(
        task="image-classification",
        architecture=record.architecture,
        outputs=ImageOutputs._fields,
        labels=dict.fromkeys(ImageOutputs._fields, record.classes),
        # As the evaluation pictures of training were made.
        preprocessing=Preprocessing(
            input=INPUT,
            height=image.height,
            width=image.width,
            channels=1 if image.channels == 1 else 3,
            resize=image.resize,
            short_side=image.short_side,
            output=PROBABILITIES,
        ),
        sharing=sharing,
        examples=examples,
        training=provenance_of(record),
        commit=record.commit,
    )
