"""The checkpoint of an unfinished run: one safetensors file, replaced after every epoch.

    network.*      the current weights              average.*  their moving average
    best.*         the weights of the best epoch    random.*   states of torch's global generators
    optimizer.N.*  the optimiser's state of parameter N
    metadata       `CheckpointNote` as JSON

One file, so that weights and counters are always of the same step. Nothing is pickled.
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
from weir.training.loop import Progress, TrainingState
from weir.training.recipe import explain
from weir.training.recipes import AnyRecipe
from weir.training.run_directory import unshare, write_atomically

CHECKPOINT = "checkpoint.safetensors"


class CheckpointNote(BaseModel):
    """The run's recipe, data and progress, for resuming; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    recipe: AnyRecipe
    data_checksum: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a checkpoint file."""

    note: CheckpointNote
    tensors: dict[str, Tensor]


def write_checkpoint(
    run: Path, state: TrainingState, recipe: AnyRecipe, data_checksum: str
) -> None:
    """Write the state into the run directory."""
    # Dropout draws from the global generators.
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    note = CheckpointNote(recipe=recipe, data_checksum=data_checksum, progress=state.progress)
    tensors = {
        **_under("network", state.network.state_dict()),
        **_under("average", state.average.state_dict() if state.average else {}),
        **_under("best", state.best),
        **_under("random", generators),
    }
    for index, moment in state.optimizer.state_dict()["state"].items():
        tensors |= _under(f"optimizer.{index}", moment)
    write_atomically(
        run / CHECKPOINT, save(unshare(tensors), metadata={"note": note.model_dump_json()})
    )


def read_checkpoint(run: Path) -> Checkpoint:
    """Read a run directory's checkpoint; `RunError` if it is missing or broken."""
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
        raise RunError(f"{path}: expected a checkpoint, got {error}") from error


def restore(state: TrainingState, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a fresh state; `RunError` if it is of another network."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below("optimizer", checkpoint.tensors).items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    try:
        state.network.load_state_dict(_below("network", checkpoint.tensors))
        if state.average is not None:
            state.average.load_state_dict(_below("average", checkpoint.tensors))
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the checkpoint is of another network: {error}") from error
    state.best = _below("best", checkpoint.tensors)
    state.progress = checkpoint.note.progress
    generators = _below("random", checkpoint.tensors)
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
