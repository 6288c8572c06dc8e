"""A whole training run from a recipe, without the command line's options."""

from pathlib import Path

import torch

from weir.training.checkpoint import Checkpoint
from weir.training.recipes import AnyRecipe
from weir.training.run_directory import RunRecord
from weir.training.train import Monitor, prepare, train_experiment


def train(
    recipe: AnyRecipe,
    out: Path,
    device: torch.device,
    monitor: Monitor,
    resumed: Checkpoint | None,
) -> RunRecord:
    """Prepare the recipe's data and train."""
    return train_experiment(prepare(recipe), out, device, monitor, resumed)
