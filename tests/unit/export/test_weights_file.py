"""Weights as training scripts save them: taken and told, or refused with the line that helps."""

import argparse
import re
import subprocess
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from weir.export.errors import ExportError
from weir.export.weights_file import StateDict, read_state_dict


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(body=nn.Linear(2, 3), norm=nn.BatchNorm1d(3)))


WEIGHTS = dict(network().state_dict())
OTHERS = {name: tensor + 1 for name, tensor in WEIGHTS.items()}


def prefixed(prefix: str, weights: dict[str, Tensor] = WEIGHTS) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def read(file: Path) -> StateDict:
    return read_state_dict(file, list(WEIGHTS))


def saved(content: object, folder: Path, name: str = "net.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def expect(found: StateDict, weights: dict[str, Tensor] = WEIGHTS) -> None:
    assert found.tensors.keys() == weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(found.tensors[name], tensor)


def optimizer_state() -> dict[str, Any]:
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


TAKEN: dict[str, tuple[object, str]] = {
    "plain": (WEIGHTS, ""),
    "DataParallel": (
        nn.DataParallel(network()).state_dict(),
        "weights: without the prefix module.",
    ),
    "DataParallel within": (
        {name.replace("body.", "body.module."): each for name, each in WEIGHTS.items()},
        "weights: without the prefix module.",
    ),
    "torch.compile": (
        prefixed("_orig_mod."),
        "weights: without the prefix _orig_mod.",
    ),
    "both": (
        prefixed("module._orig_mod."),
        "weights: without the prefix _orig_mod. and module.",
    ),
    "checkpoint": (
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": optimizer_state()},
        "weights: of ['state_dict']",
    ),
    "checkpoint of DataParallel": (
        {"model": prefixed("module."), "epoch": 3},
        "weights: of ['model'], without the prefix module.",
    ),
    "model_state_dict": ({"model_state_dict": WEIGHTS}, "weights: of ['model_state_dict']"),
    "one more level": (
        {"checkpoint": {"model": WEIGHTS, "step": 7}, "args": {}},
        "weights: of ['checkpoint']['model']",
    ),
    "average": (
        {"state_dict": OTHERS, "state_dict_ema": WEIGHTS},
        "weights: of ['state_dict_ema'] (also there: ['state_dict'])",
    ),
    "average of torch": (
        torch.optim.swa_utils.AveragedModel(network()).state_dict(),
        "weights: without the prefix module., left out: n_averaged",
    ),
    "Lightning": (
        {"state_dict": {**prefixed("net."), "criterion.weight": torch.ones(2)}, "epoch": 1},
        "weights: of ['state_dict'], without the prefix net., left out: criterion.weight",
    ),
    "objects of other classes": (
        {
            "model": WEIGHTS,
            "args": argparse.Namespace(learning_rate=0.1, data=Path("x")),
            "best": np.float64(0.5),
            "metrics": defaultdict(list, loss=[1.0]),
            "rng": np.random.get_state(),  # noqa: NPY002 - as scripts save it
        },
        "weights: of ['model']",
    ),
    "another network's weights too": (
        {"discriminator": {"layer.weight": torch.ones(9)}, "generator": WEIGHTS},
        "weights: of ['generator']",
    ),
}


@pytest.mark.parametrize(("content", "note"), TAKEN.values(), ids=TAKEN.keys())
def test_state_dict_is_found_and_told(content: object, note: str, tmp_path: Path) -> None:
    found = read(saved(content, tmp_path))

    expect(found)
    assert found.note == note


def test_prefixes_of_safetensors_are_cut_too(tmp_path: Path) -> None:
    save_file(prefixed("model.module."), tmp_path / "net.safetensors")

    found = read(tmp_path / "net.safetensors")

    expect(found)
    assert found.note == "weights: without the prefix module. and model."


def test_dictionary_that_holds_itself_is_read(tmp_path: Path) -> None:
    content: dict[str, object] = {"model": WEIGHTS}
    content["again"] = content

    expect(read(saved(content, tmp_path)))


def command_of(message: str) -> str:
    """The Python code that a message says to run."""
    found = re.search(r'run: python -c "(.*)"; then name ', message)
    assert found and "\n" not in message
    return found[1]


@pytest.mark.parametrize("key", ["", "model"], ids=["whole module", "in a checkpoint"])
def test_whole_module_is_refused_with_the_line_that_helps(key: str, tmp_path: Path) -> None:
    module = network()
    file = saved({key: module, "epoch": 1} if key else module, tmp_path)

    with pytest.raises(
        ExportError, match=r"whole pickled object \(torch\.nn\.\S+Sequential\)"
    ) as e:
        read(file)

    subprocess.run([sys.executable, "-c", command_of(str(e.value))], check=True, timeout=120)
    expect(read(tmp_path / "net-weights.pth"))


@pytest.mark.parametrize("content", ["checkpoint", "module"])
def test_first_format_of_torch_is_read_alike(content: str, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    checkpoint = {"model": WEIGHTS, "args": argparse.Namespace(data=Path("x"))}
    saved_object = checkpoint if content == "checkpoint" else network()
    torch.save(saved_object, file, _use_new_zipfile_serialization=False)

    if content == "checkpoint":
        expect(read(file))
    else:
        with pytest.raises(ExportError, match=r"whole pickled object \(torch\.nn.* run: python"):
            read(file)


def test_torchscript_is_refused_with_the_line_that_helps(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.trace(network().eval(), torch.ones(1, 2)).save(str(file))  # type: ignore[no-untyped-call]

    with pytest.raises(ExportError, match="got a TorchScript archive; run: python -c") as raised:
        read(file)

    code = command_of(str(raised.value))
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
    expect(read(tmp_path / "net-weights.pth"))


class Trap:
    """Code that runs when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.sprung,)


class Grown:
    """An object whose state is a trap."""

    def __init__(self, sprung: Path) -> None:
        self.trap = Trap(sprung)


@pytest.mark.parametrize("kind", [Trap, Grown])
def test_code_in_a_checkpoint_is_not_run(kind: type, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    file = saved({"state_dict": WEIGHTS, "args": kind(sprung)}, tmp_path)

    try:
        found = read(file)
    except ExportError as error:
        assert "tensors and nothing else; it holds" in str(error)  # noqa: PT017 - one of two ends
    else:
        expect(found)

    assert not sprung.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "got a list"),
        ({}, "got none"),
        ({"epoch": 3, "lr": 0.1}, "got a dictionary of epoch, lr"),
        (torch.zeros(3), "got a Tensor"),
    ],
    ids=["list", "empty", "numbers", "tensor"],
)
def test_file_without_a_state_dict_says_what_it_holds(
    content: object, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=f"expected a state dict, tensors by name, {says}$"):
        read(saved(content, tmp_path))
