"""The checkpoint of an unfinished run: one safetensors file, replaced whole after every epoch.

    network.*      the weights as they are          best.*    those of the best epoch
    optimizer.N.*  the optimiser's memory of parameter N      random.*  torch's global generators
    metadata       `CheckpointNote` as JSON

It is one file, so that weights and numbers can never be of two different moments. Nothing is pickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from weir.training.errors import RunError
from weir.training.files import apart, write_whole
from weir.training.loop import State
from weir.training.progress import Progress
from weir.training.recipe import explain
from weir.training.recipes import AnyRecipe

CHECKPOINT = "checkpoint.safetensors"


class CheckpointNote(BaseModel):
    """What a resumed run must agree with, and how far it had come; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    recipe: AnyRecipe
    data_checksum: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as read."""

    note: CheckpointNote
    tensors: dict[str, Tensor]


def write_checkpoint(run: Path, state: State, recipe: AnyRecipe, data_checksum: str) -> None:
    """Write the state into the run directory, whole or not at all."""
    note = CheckpointNote(recipe=recipe, data_checksum=data_checksum, progress=state.progress)
    tensors = {
        **_under("network", state.network.state_dict()),
        **_under("average", state.average.state_dict() if state.average else {}),
        **_under("best", state.best),
        **_under("random", _generator_states()),
    }
    for index, memory in state.optimizer.state_dict()["state"].items():
        tensors |= _under(f"optimizer.{index}", memory)
    write_whole(run / CHECKPOINT, save(apart(tensors), metadata={"note": note.model_dump_json()}))


def read_checkpoint(run: Path) -> Checkpoint:
    """Read a run directory's checkpoint.

    Raises:
        RunError: there is none, or it is broken.
    """
    path = run / CHECKPOINT
    if not path.is_file():
        raise RunError(f"{run}: nothing to resume, {CHECKPOINT} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            note = CheckpointNote.model_validate_json((file.metadata() or {}).get("note", ""))
            return Checkpoint(note, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except ValidationError as error:
        raise RunError(f"{path}: {explain(error)}") from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: expected a checkpoint, found {error}") from error


def restore(state: State, checkpoint: Checkpoint) -> None:
    """Put a freshly made state back to where the checkpoint was taken.

    Raises:
        RunError: the checkpoint belongs to another network.
    """
    memories: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below("optimizer", checkpoint.tensors).items():
        index, key = name.split(".", 1)
        memories.setdefault(int(index), {})[key] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    try:
        state.network.load_state_dict(_below("network", checkpoint.tensors))
        if state.average is not None:
            state.average.load_state_dict(_below("average", checkpoint.tensors))
        state.optimizer.load_state_dict({"state": memories, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the checkpoint is of another network: {error}") from error
    state.best = _below("best", checkpoint.tensors)
    state.progress = checkpoint.note.progress
    _set_generators(_below("random", checkpoint.tensors))


def remove_checkpoint(run: Path) -> None:
    """Forget the checkpoint of a run that is finished."""
    (run / CHECKPOINT).unlink(missing_ok=True)


def _generator_states() -> dict[str, Tensor]:
    """The global generators: networks with dropout draw from them."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
