import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.unit.training import layouts as published
from weir.bundle.contract import Preprocessing
from weir.bundle.reader import read
from weir.export import samples
from weir.export.errors import ExportError, WrongWeights
from weir.export.pretrained import publish_weights
from weir.export.publishing import Published
from weir.export.runs.images import ImageGraph
from weir.server.repository import golden_test, loader
from weir.server.runtime.session import Session
from weir.training.models import MODELS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = {
    "alexnet": published.alexnet(),
    "googlenet": published.googlenet(auxiliary=True),
    "inception-v3": published.inception_v3(auxiliary=True),
}
PARAMETERS = {"alexnet": 61_100_840, "googlenet": 6_624_904, "inception-v3": 23_834_568}
# As torchvision publishes them, and as two training scripts save them.
AS_SAVED: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "alexnet": lambda weights: {
        "state_dict": {
            name.replace("features.", "features.module."): each for name, each in weights.items()
        },
        "epoch": 90,
        "args": argparse.Namespace(lr=0.1),
    },
    "googlenet": lambda weights: {f"module.{name}": each for name, each in weights.items()},
    "inception-v3": lambda weights: weights,
}
NOTES = {
    "alexnet": ["weights: of ['state_dict'], without the prefix module."],
    "googlenet": ["weights: without the prefix module."],
    "inception-v3": [],
}
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.txt"
    file.write_text("".join(f"class {number}\n" for number in range(1000)))
    return file


@pytest.fixture
def publish(tmp_path: Path, labels: Path) -> Callable[..., Published]:
    """Publish weights that were put into a file."""

    def publish(weights: object, recipe: str, labels: Path = labels) -> Published:
        file = tmp_path / "weights.pt"
        torch.save(weights, file)
        return publish_weights(file, recipe=recipe, labels=labels, to=tmp_path / "models")

    return publish


def test_layouts_are_those_with_the_published_sizes() -> None:
    for recipe, layout in LAYOUTS.items():
        counted = {
            name: shape
            for name, shape in layout.items()
            if not name.startswith(AUXILIARY) and "running" not in name and shape
        }

        assert sum(int(np.prod(shape)) for shape in counted.values()) == PARAMETERS[recipe]


@pytest.mark.parametrize(
    ("recipe", "side", "short_side"),
    [("alexnet", 224, 256), ("googlenet", 224, 256), ("inception-v3", 299, 342)],
)
def test_published_layout_loads_exports_and_serves(
    recipe: str,
    side: int,
    short_side: int,
    publish: Callable[..., Published],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The gate's 92 rows take a minute on the largest network; other tests cover larger batches.
    monkeypatch.setattr(samples, "BATCH_SIZES", (1, 2))
    weights = published.random_weights(LAYOUTS[recipe])

    bundle = publish(AS_SAVED[recipe](weights), recipe)

    path = bundle.path
    assert [line for line in bundle.advice if line.startswith("weights")] == NOTES[recipe]
    (files,) = loader.read(path)
    session = Session(files.graph, provider="cpu", threads=1)
    assert files.contract is not None
    golden_test.replay(session, files.contract, files.golden)
    images = np.random.default_rng(2).integers(0, 256, (2, side, side, 3), np.uint8)
    served = session.run({"image": images})["logits"]
    expected = _torch_logits(recipe, side, weights, images)
    # 1e-5, relative to the largest: the error of a logit is a share of what was added up to it.
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.5
    contract = read(path).contract
    assert contract.preprocessing == Preprocessing(
        input="image",
        height=side,
        width=side,
        channels=3,
        resize="short-side",
        short_side=short_side,
        output="probabilities",
    )
    assert contract.architecture == recipe
    assert contract.task == "image-classification"


def _torch_logits(
    recipe: str, side: int, weights: dict[str, Tensor], images: np.ndarray
) -> np.ndarray:
    """The module's own answer; what torchvision calls `transform_input` is applied here by hand."""
    network = MODELS[recipe](classes=1000, height=side, width=side)
    wanted = network.state_dict()
    network.load_state_dict({name: weights[name] for name in wanted})
    # x * std + mean - 0.5, over 0.5, replaces ImageNet's normalisation by mean 0.5 and std 0.5.
    mean, std = (MEAN, STD) if recipe == "alexnet" else ((0.5,) * 3, (0.5,) * 3)
    with torch.inference_mode():
        module = ImageGraph(network.eval(), mean, std)
        logits: np.ndarray = module(torch.from_numpy(images)).logits.numpy()
    return logits


@pytest.fixture(scope="module")
def googlenet() -> dict[str, Tensor]:
    return published.random_weights(LAYOUTS["googlenet"])


def test_wrong_keys_are_listed_by_name(
    googlenet: dict[str, Tensor], publish: Callable[..., Published], tmp_path: Path
) -> None:
    weights = dict(googlenet)
    del weights["conv2.bn.running_var"], weights["inception4c.branch2.1.conv.weight"]
    weights["head.weight"] = torch.zeros(2)
    weights["fc.bias"] = torch.zeros(7)

    with pytest.raises(WrongWeights) as raised:
        publish(weights, "googlenet")

    assert str(raised.value) == (
        f"{tmp_path / 'weights.pt'}: not the weights of googlenet for 1000 classes; "
        "2 missing: conv2.bn.running_var, inception4c.branch2.1.conv.weight; "
        "1 unknown: head.weight; 1 of another shape: fc.bias (expected 1000, got 7)"
    )
    assert not (tmp_path / "models").exists()


def test_weights_of_another_network_are_listed_in_a_line(
    googlenet: dict[str, Tensor], publish: Callable[..., Published]
) -> None:
    with pytest.raises(WrongWeights) as raised:
        publish({"state_dict": {"module.classifier.6.bias": torch.zeros(1000)}}, "googlenet")

    assert str(raised.value).endswith(
        "; 287 missing: conv1.conv.weight, conv1.bn.weight, conv1.bn.bias, conv1.bn.running_mean, "
        "conv1.bn.running_var and 282 more; 1 unknown: classifier.6.bias; "
        "weights: of ['state_dict'], without the prefix module."
    )


def test_labels_must_be_as_many_as_the_weights_know(
    googlenet: dict[str, Tensor], publish: Callable[..., Published], tmp_path: Path
) -> None:
    three = tmp_path / "three.txt"
    three.write_text("a\nb\nc\n")

    with pytest.raises(WrongWeights, match=r"googlenet for 3 classes; 2 of another") as raised:
        publish(googlenet, "googlenet", three)

    assert "fc.weight (expected 3 x 1024, got 1000 x 1024)" in str(raised.value)
    assert str(raised.value).endswith("; the file is of 1000 classes, --labels names 3")


@pytest.mark.parametrize(
    "labels",
    ["", "a\n\nb\n", "\xff", "\xef\xbb\xbf\nb\n"],
    ids=["none", "empty line", "latin-1", "byte order mark alone"],
)
def test_broken_labels_are_refused(
    labels: str, publish: Callable[..., Published], tmp_path: Path
) -> None:
    file = tmp_path / "broken.txt"
    file.write_bytes(labels.encode("latin-1"))

    with pytest.raises(ExportError, match=r"broken\.txt: expected"):
        publish({}, "alexnet", file)


def test_code_in_a_file_of_weights_is_not_run(
    publish: Callable[..., Published], tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    with pytest.raises(ExportError, match="tensors and nothing else"):
        publish({"conv1.conv.weight": Trap()}, "googlenet")

    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "found",
    [[torch.zeros(1)], {"epoch": 3}, {1: torch.zeros(1)}],
    ids=["list", "checkpoint", "numbered"],
)
def test_file_without_a_state_dict_is_refused(
    found: object, publish: Callable[..., Published]
) -> None:
    with pytest.raises(ExportError, match="expected a state dict, tensors by name"):
        publish(found, "googlenet")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_file_is_refused(name: str, labels: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not weights")

    with pytest.raises(ExportError, match=f"{name}: expected"):
        publish_weights(tmp_path / name, recipe="googlenet", labels=labels, to=tmp_path / "models")


def test_safetensors_are_read(labels: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"stray": torch.zeros(1)}, file)

    with pytest.raises(WrongWeights, match="unknown: stray"):
        publish_weights(file, recipe="googlenet", labels=labels, to=tmp_path / "models")


def test_files_of_before_2018_are_read(
    googlenet: dict[str, Tensor], labels: Path, tmp_path: Path
) -> None:
    """AlexNet's published file is of torch's first format, and older ones count no batches."""
    file = tmp_path / "weights.pth"
    old = {name: each for name, each in googlenet.items() if "num_batches" not in name}
    torch.save({**old, "stray": torch.zeros(1)}, file, _use_new_zipfile_serialization=False)

    with pytest.raises(WrongWeights) as raised:
        publish_weights(file, recipe="googlenet", labels=labels, to=tmp_path / "models")

    assert str(raised.value).endswith(" for 1000 classes; 1 unknown: stray")


def test_unknown_recipe(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="expected alexnet, googlenet, inception-v3, got 'lenet5'"
    ):
        publish_weights(tmp_path / "x.pt", recipe="lenet5", labels=labels, to=tmp_path)
