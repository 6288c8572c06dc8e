"""Interrupt and resume: the same weights as without an interruption."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.sequence_files import write_labelled, write_tagged
from tests.helpers.training import train
from weir.training.checkpoint import CHECKPOINT, read_checkpoint
from weir.training.errors import InterruptedRunError, RunError
from weir.training.images.experiment import load_model
from weir.training.recipes import AnyRecipe, change_recipe, make_recipe
from weir.training.run_directory import WEIGHTS, RunRecord
from weir.training.train import Monitor

CPU = torch.device("cpu")


def run_in_pieces(
    recipe: AnyRecipe, out: Path, pieces: list[int], silent: Callable[..., Monitor]
) -> RunRecord:
    """Train, stopping after each number of steps, then to the end."""
    resumed = None
    for steps in pieces:
        with pytest.raises(InterruptedRunError):
            train(recipe, out, CPU, silent(stop_after=steps), resumed)
        # The generators of a new process have another state.
        torch.manual_seed(99)
        resumed = read_checkpoint(out)
    return train(recipe, out, CPU, silent(), resumed)


@pytest.mark.parametrize("pieces", [[1], [4], [6], [0, 2, 3, 1]], ids=str)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_interrupted_and_resumed_is_bit_identical(
    small_recipe: AnyRecipe,
    tmp_path: Path,
    silent: Callable[..., Monitor],
    pieces: list[int],
    kind: str,
) -> None:
    recipe = change_recipe(small_recipe, optimizer={"kind": kind})
    whole = train(recipe, tmp_path / "whole", CPU, silent(), None)

    parted = run_in_pieces(recipe, tmp_path / "parted", pieces, silent)

    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parted"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    timeless = [
        [record.model_dump(exclude={"seconds"}) for record in run.epochs] for run in (whole, parted)
    ]
    assert timeless[0] == timeless[1]
    assert whole.test_accuracy == parted.test_accuracy
    assert not (tmp_path / "parted" / CHECKPOINT).exists()


def test_the_average_and_the_heads_go_on_as_well(
    shapes: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    recipe = make_recipe(
        "inception-v1",
        str(shapes),
        image={"height": 28, "width": 28, "channels": 1},
        epochs=2,
        batch_size=13,
        average_decay=0.5,
    )
    whole = train(recipe, tmp_path / "whole", CPU, silent(), None)

    parted = run_in_pieces(recipe, tmp_path / "parted", [3], silent)

    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parted"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.epochs[1].validation_loss == parted.epochs[1].validation_loss
    assert not any(name.startswith("aux") for name in load_model(tmp_path / "parted").state_dict())


def test_another_seed_gives_other_weights(
    small_recipe: AnyRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    train(small_recipe, tmp_path / "a", CPU, silent(), None)
    train(change_recipe(small_recipe, seed=4), tmp_path / "b", CPU, silent(), None)

    one, other = (load_file(tmp_path / name / WEIGHTS) for name in "ab")
    assert not torch.equal(one["c5.weight"], other["c5.weight"])


def test_a_checkpoint_goes_with_its_data_and_its_network(
    small_recipe: AnyRecipe, shapes: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    with pytest.raises(InterruptedRunError):
        train(small_recipe, tmp_path / "run", CPU, silent(stop_after=1), None)
    resumed = read_checkpoint(tmp_path / "run")
    other = change_recipe(small_recipe, architecture="lenet5-1998")

    with pytest.raises(RunError, match="the checkpoint is of another network"):
        train(other, tmp_path / "run", CPU, silent(), resumed)
    (shapes / "left" / "00.png").unlink()
    with pytest.raises(RunError, match=r"SHA-256 was .* begin anew"):
        train(small_recipe, tmp_path / "run", CPU, silent(), resumed)


def test_a_broken_checkpoint_is_named(
    small_recipe: AnyRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    with pytest.raises(RunError, match="nothing to resume"):
        read_checkpoint(tmp_path)
    with pytest.raises(InterruptedRunError):
        train(small_recipe, tmp_path, CPU, silent(stop_after=1), None)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(RunError, match=rf"{CHECKPOINT}: expected a checkpoint, got"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("pieces", [[1], [13, 2], [12]], ids=["first", "twice", "last of epoch"])
@pytest.mark.parametrize("name", ["tagger", "question"])
def test_sequences_resumed_are_bit_identical(
    name: str, pieces: list[int], tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    write = {"tagger": write_tagged, "question": write_labelled}[name]
    recipe = make_recipe(
        name,
        str(write(tmp_path / "rows.txt")),
        epochs=3,
        batch_size=4,
        encoder={"hidden": 8, "layers": 2, "dropout": 0.3},
        tokens={"unknown_share": 0.2},
    )
    whole = train(recipe, tmp_path / "whole", CPU, silent(), None)

    parted = run_in_pieces(recipe, tmp_path / "parted", pieces, silent)

    one, other = (load_file(tmp_path / each / WEIGHTS) for each in ("whole", "parted"))
    assert all(torch.equal(one[each], other[each]) for each in one)
    assert whole.epochs[-1].validation_loss == parted.epochs[-1].validation_loss
    assert (whole.test_accuracy, whole.test_metrics) == (parted.test_accuracy, parted.test_metrics)
