"""AlexNet for benchmarks: two bundles with random weights, and photographs as inputs.

`alexnet` takes pictures as `weir export --weights` publishes it: uint8, normalised in the graph.
`alexnet-fp32` takes normalised float32, which a graph without normalisation needs. The speed does
not depend on the weights.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]
from torch import Tensor, nn

from weir.export.pretrained import publish_weights
from weir.export.publishing import publish
from weir.export.runs.images import INPUT, ImageOutputs
from weir.export.spec import ExportSpec
from weir.training.models.alexnet import AlexNet
from weir.training.models.layers import IMAGENET_MEAN, IMAGENET_STD

PICTURES, TENSORS = "alexnet", "alexnet-fp32"
SIDE = 224
_CLASSES = 1000
_JPEG_QUALITY = 90


class _Normalised(nn.Module):
    """AlexNet for training: image float32 (B, 3, H, W), normalised by the caller."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> ImageOutputs:
        """Logits and probabilities (B, classes)."""
        logits = self.network(image)  # (B, classes)
        return ImageOutputs(logits=logits, probabilities=torch.softmax(logits, dim=-1))


def make_bundles(models: Path) -> None:
    """Publish the bundles that are absent; each takes a minute and 244 MB."""
    torch.manual_seed(0)
    network = AlexNet(classes=_CLASSES, height=SIDE, width=SIDE).eval()
    if not (models / PICTURES).exists():
        _publish_pictures(network, models)
    if not (models / TENSORS).exists():
        examples = torch.from_numpy(np.concatenate([normalise(each) for each in photographs()]))
        spec = ExportSpec(architecture="alexnet", outputs=ImageOutputs._fields)
        publish(_Normalised(network), {INPUT: examples}, spec, to=models, name=TENSORS)


def photographs() -> list[NDArray[np.uint8]]:
    """Centre crops of scikit-learn's two photographs: (224, 224, 3) each."""
    crops = []
    for photograph in load_sample_images().images:
        top, left = ((size - SIDE) // 2 for size in photograph.shape[:2])
        crops.append(np.ascontiguousarray(photograph[top : top + SIDE, left : left + SIDE]))
    return crops


def normalise(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The input (1, 3, 224, 224) of `alexnet-fp32` from a picture (224, 224, 3)."""
    mean, std = np.array((IMAGENET_MEAN, IMAGENET_STD), np.float32)
    scaled = (picture.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis], np.float32)


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A picture as a JPEG file, quality 90."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _publish_pictures(network: nn.Module, models: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights, labels = Path(folder) / "alexnet.pth", Path(folder) / "labels.txt"
        torch.save(network.state_dict(), weights)
        labels.write_text("".join(f"class {number}\n" for number in range(_CLASSES)))
        publish_weights(weights, recipe="alexnet", labels=labels, to=models, name=PICTURES)
