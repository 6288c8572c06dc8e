from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from weir.export import fp16, static_quantisation
from weir.export.graph import convert
from weir.export.runs.images import INPUT, LOGITS, ImageGraph, ImageOutputs, sharing_of
from weir.export.runtime import open_session
from weir.export.spec import ExportSpec
from weir.training.models import build

IMAGES = ExportSpec(architecture="pictures", outputs=ImageOutputs._fields)


class Recorder(nn.Module):
    """Hands on what it is given, flattened."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class ChannelsLast(ImageGraph):
    """The order of older bundles: normalisation, then transpose."""

    def forward(self, image: Tensor) -> ImageOutputs:
        mean, std = self.mean.flatten(), self.std.flatten()
        normalised = (image.to(torch.float32) / 255 - mean) / std
        logits = self.network(normalised.permute(0, 3, 1, 2))
        return ImageOutputs(logits, torch.softmax(logits, dim=-1))


def int8(model: bytes) -> bytes:
    images = np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return static_quantisation.quantise(
        static_quantisation.preprocess(model), iter([{INPUT: images}])
    )


@pytest.mark.parametrize(
    ("network", "side", "channels", "conversion"),
    [
        ("lenet5", 28, 1, None),
        ("alexnet", 32, 3, None),
        ("alexnet", 32, 3, fp16.convert),
        ("alexnet", 32, 3, int8),
    ],
    ids=["lenet5", "alexnet", "fp16", "int8"],
)
def test_order_of_normalisation_and_transpose_changes_no_bit(
    network: str, side: int, channels: int, conversion: Callable[[bytes], bytes] | None
) -> None:
    torch.manual_seed(0)
    module = build(network, classes=10, height=side, width=side, channels=channels).eval()
    images = torch.randint(0, 256, (9, side, side, channels), dtype=torch.uint8)

    logits = []
    for graph in (ImageGraph, ChannelsLast):
        mean, std = [0.1307, 0.4, 0.51][:channels], [0.3081, 0.22, 0.27][:channels]
        model = convert(graph(module, mean, std).eval(), {INPUT: images}, IMAGES)
        session = open_session(conversion(model) if conversion else model)
        logits.append(session.run([LOGITS], {INPUT: images.numpy()})[0])

    np.testing.assert_array_equal(*logits)
    assert np.ptp(logits[0]) > 0


def test_normalises_as_the_formula_says() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)

    logits = ImageGraph(Recorder(), mean, std)(torch.from_numpy(image)).logits

    expected = ((image / 255.0 - mean) / std).transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-6)


def test_probabilities_are_the_softmax() -> None:
    image = torch.randint(0, 256, (3, 2, 2, 1), dtype=torch.uint8)

    outputs = ImageGraph(Recorder(), [0.5], [0.5])(image)

    odds = np.exp(outputs.logits.numpy())
    np.testing.assert_allclose(
        outputs.probabilities.numpy(), odds / odds.sum(axis=1, keepdims=True), rtol=1e-5
    )
    assert outputs.probabilities.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_lenet5_of_1998_is_counted_as_its_paper_does() -> None:
    network = build("lenet5-1998", classes=10, height=28, width=28, channels=1)

    sharing = sharing_of(network, 1, 28, 28)

    assert (sharing.parameters, sharing.connections) == (60_000, 340_908)
