"""What of a run on pictures goes into a bundle."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from weir.bundle.contract import Preprocessing, Sharing
from weir.export.int8_static import CALIBRATION_ROWS, StaticInt8
from weir.export.provenance import name_of, provenance_of, random_examples
from weir.export.spec import ExportSpec, RunExport
from weir.training.errors import TrainingError
from weir.training.images.experiment import load_data, load_model
from weir.training.run_directory import ImageRecord, RunRecord, part_of
from weir.training.weight_sharing import count_sharing

INPUT = "image"
LOGITS, PROBABILITIES = "logits", "probabilities"


class ImageOutputs(NamedTuple):
    """logits (B, classes) as the network gives them, and their softmax."""

    logits: Tensor
    probabilities: Tensor


def sharing_of(network: nn.Module, channels: int, height: int, width: int) -> Sharing:
    """Parameters and connections of a network of pictures, before anything is folded.

    Raises:
        ModelError: it is not known how one of its layers connects.
    """
    layers = count_sharing(network, (channels, height, width))
    return Sharing(
        parameters=sum(layer.parameters for layer in layers),
        connections=sum(layer.connections for layer in layers),
    )


class ImageGraph(nn.Module):
    """Puts normalisation into the graph, so that no client can get it wrong.

    Args:
        network: takes float32 (B, C, H, W), normalised; returns logits (B, classes).
        mean, std: of each channel, on the scale 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, image: Tensor) -> ImageOutputs:
        """Classify pictures: image uint8 (B, H, W, C)."""
        normalised = (image.to(torch.float32) / 255 - self.mean) / self.std
        logits = self.network(normalised.permute(0, 3, 1, 2))  # (B, classes)
        return ImageOutputs(logits=logits, probabilities=torch.softmax(logits, dim=-1))


_EXAMPLE_ROWS = 64
_CALIBRATION_SEED = 0


def read(run: Path, record: RunRecord) -> RunExport:
    """The network with its normalisation, and test pictures; random ones where they cannot be had."""
    image = part_of(record, ImageRecord)
    trained = load_model(run)
    network = ImageGraph(trained, image.mean, image.std)
    sharing = sharing_of(trained, image.channels, image.height, image.width)
    try:
        images = load_data(record, "test").images
    except TrainingError as error:
        described = random_examples(record, error)
        return RunExport(
            network, {INPUT: _random_images(record)}, _spec(record, described, sharing)
        )
    # Spread over the set: some are sorted by class.
    rows = np.linspace(0, len(images) - 1, min(_EXAMPLE_ROWS, len(images)), dtype=np.int64)
    spec = _spec(record, f"test pictures of {name_of(record)}", sharing)
    return RunExport(network, {INPUT: torch.from_numpy(images[rows])}, spec)


def fitting(_run: Path, record: RunRecord, max_drop: float) -> StaticInt8:
    """Training pictures to quantise by, drawn from a fixed seed, and the whole test set."""
    train, test = load_data(record, "train"), load_data(record, "test")
    order = np.random.default_rng(_CALIBRATION_SEED).permutation(len(train.images))
    rows = np.sort(order[:CALIBRATION_ROWS])
    return StaticInt8(
        calibration={INPUT: train.images[rows]},
        calibration_from=f"training pictures of {name_of(record)}, seed {_CALIBRATION_SEED}",
        test={INPUT: test.images},
        test_from=f"test pictures of {name_of(record)}",
        answers=test.labels,
        output=LOGITS,
        max_drop=max_drop,
    )


def _random_images(record: RunRecord) -> Tensor:
    image = part_of(record, ImageRecord)
    shape = (_EXAMPLE_ROWS, image.height, image.width, image.channels)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _spec(record: RunRecord, examples: str, sharing: Sharing) -> ExportSpec:
    return ExportSpec(
        task="image-classification",
        architecture=record.architecture,
        outputs=ImageOutputs._fields,
        labels=dict.fromkeys(ImageOutputs._fields, record.classes),
        preprocessing=_preprocessing(part_of(record, ImageRecord)),
        sharing=sharing,
        examples=examples,
        training=provenance_of(record),
        commit=record.commit,
    )


def _preprocessing(image: ImageRecord) -> Preprocessing:
    """The way training's evaluation pictures were made of encoded ones."""
    return Preprocessing(
        input=INPUT,
        height=image.height,
        width=image.width,
        channels=1 if image.channels == 1 else 3,
        resize=image.resize,
        short_side=image.short_side,
        output=PROBABILITIES,
    )
