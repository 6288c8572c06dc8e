"""Publication of pretrained weights, as `weir export --weights FILE --recipe NAME` does it.

The file holds a state dict in torchvision's layout, also as a training script saves it (see
`weir.export.weights_file`). Its tensors must be exactly the network's, except auxiliary
classifiers, which are used in training only and are dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]
from torch import Tensor, nn

from weir.bundle.contract import Preprocessing, Tolerance
from weir.bundle.escaping import short_list
from weir.export.errors import ExportError, WrongWeights
from weir.export.publishing import Published, publish
from weir.export.runs.images import INPUT, PROBABILITIES, ImageGraph, ImageOutputs, sharing_of
from weir.export.spec import ExportSpec
from weir.export.weights_file import read_state_dict
from weir.training.models import MODELS
from weir.training.models.layers import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True, slots=True)
class WeightsLayout:
    """Image sizes of a network's pretrained weights, and their differences from ours.

    Attributes:
        side: of the network's input, in pixels.
        short_side: of the resized picture before the centre crop, in pixels.
        auxiliary: name prefixes of the tensors of auxiliary classifiers.
        arguments: arguments that make the network compute as torchvision's does.
    """

    side: int
    short_side: int
    auxiliary: tuple[str, ...] = ()
    arguments: Mapping[str, bool] | None = None


# Sizes of `torchvision.models.*_Weights.IMAGENET1K_V1.transforms`, all with bilinear resizing.
LAYOUTS = {
    "alexnet": WeightsLayout(224, 256),
    "googlenet": WeightsLayout(224, 256, ("aux1.", "aux2."), {"transform_input": True}),
    "inception-v3": WeightsLayout(299, 342, ("AuxLogits.",), {"transform_input": True}),
}

_EXAMPLE_ROWS = 32
_EXAMPLES = "crops of the two photographs that come with scikit-learn"


def publish_weights(
    file: Path,
    *,
    recipe: str,
    labels: Path,
    to: Path,
    name: str | None = None,
    version: int | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> Published:
    """Publish a network with pretrained weights; other arguments and errors are those of `publish`.

    Args:
        file: the weights, by `torch.save`, or by safetensors with the suffix `.safetensors`.
        recipe: a key of `LAYOUTS`.
        labels: a text file with a class on each line, in the order of the network's outputs.
        name: of the model; by default the recipe.
        precision: not `int8`, which needs training data for calibration.

    Raises:
        WrongWeights: the tensors are not the network's; the message names the first.
    """
    if recipe not in LAYOUTS:
        raise ExportError(f"recipe: expected {', '.join(LAYOUTS)}, got {recipe!r}")
    layout = LAYOUTS[recipe]
    classes = _read_labels(labels)
    network = MODELS[recipe](
        classes=len(classes), height=layout.side, width=layout.side, **(layout.arguments or {})
    )
    found = read_state_dict(file, list(network.state_dict()))
    weights = {
        key: value for key, value in found.tensors.items() if not key.startswith(layout.auxiliary)
    }
    differences = _compare(weights, network, len(classes))
    if differences:
        problem = f"{file}: not the weights of {recipe} for {len(classes)} classes"
        raise WrongWeights("; ".join([problem, *differences, *filter(None, [found.note])]))
    # Only counts of training steps may be missing, and inference does not use them.
    network.load_state_dict(weights, strict=False)
    module = ImageGraph(network, IMAGENET_MEAN, IMAGENET_STD).eval()
    images = _photographs(layout.side)
    spec = ExportSpec(
        task="image-classification",
        architecture=recipe,
        outputs=ImageOutputs._fields,
        labels=dict.fromkeys(ImageOutputs._fields, classes),
        preprocessing=Preprocessing(
            input=INPUT,
            height=layout.side,
            width=layout.side,
            channels=3,
            resize="short-side",
            short_side=layout.short_side,
            output=PROBABILITIES,
        ),
        tolerance=_tolerance(module, images),
        sharing=sharing_of(network, 3, layout.side, layout.side),
        examples=_EXAMPLES,
    )
    published = publish(
        module,
        {INPUT: images},
        spec,
        to=to,
        name=name or recipe,
        version=version,
        precision=precision,
    )
    return replace(published, advice=[*filter(None, [found.note]), *published.advice])


def _read_labels(file: Path) -> list[str]:
    try:
        # Editors on Windows write a byte order mark, which is no part of the first label.
        classes = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ExportError(f"{file}: expected UTF-8, {error.reason}") from error
    if not classes or not all(line.strip() for line in classes):
        raise ExportError(f"{file}: expected a label on each line, got an empty one")
    return classes


def _compare(weights: Mapping[str, Tensor], network: nn.Module, classes: int) -> list[str]:
    """Say how the tensors differ from the network's, by name and shape; empty if they do not."""
    wanted = network.state_dict()
    # Files made before 2018 lack these counts, among them GoogLeNet's and Inception's.
    missing = [
        key for key in wanted if key not in weights and not key.endswith(".num_batches_tracked")
    ]
    unknown = [key for key in weights if key not in wanted]
    misshaped = [
        key for key in wanted if key in weights and weights[key].shape != wanted[key].shape
    ]
    shapes = [
        f"{key} (expected {_shape(wanted[key])}, got {_shape(weights[key])})" for key in misshaped
    ]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    said = [f"{len(names)} {kind}: {short_list(names)}" for kind, names in kinds.items() if names]
    rows = {weights[key].shape[:1] for key in misshaped}
    is_head = all(
        wanted[key].shape[:1] == (classes,) and wanted[key].shape[1:] == weights[key].shape[1:]
        for key in misshaped
    )
    if len(rows) == 1 and is_head and not missing:
        said.append(f"the file is of {rows.pop()[0]} classes, --labels names {classes}")
    return said


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def _photographs(side: int) -> Tensor:
    """Crops (rows, side, side, 3) of uint8; photographs cause larger activations than noise."""
    photographs = load_sample_images().images
    generator = np.random.default_rng(0)
    crops = []
    for row in range(_EXAMPLE_ROWS):
        photograph = photographs[row % len(photographs)]
        top, left = (generator.integers(0, size - side + 1) for size in photograph.shape[:2])
        crops.append(photograph[top : top + side, left : left + side])
    return torch.from_numpy(np.stack(crops))


def _tolerance(module: nn.Module, images: Tensor) -> Tolerance:
    """1e-5 of the largest logit.

    Logits of pretrained networks reach 30. The error of each is proportional to its summands, so
    FP32 cannot compute the small logits to an absolute 1e-5.
    """
    with torch.inference_mode():
        logits: Tensor = module(images[:4]).logits
    return Tolerance(absolute=1e-5 * max(1.0, float(logits.abs().max())), relative=1e-5)
