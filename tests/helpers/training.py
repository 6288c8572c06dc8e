"""A whole training run from a recipe, without the command line's options and its console."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from weir.training.checkpoint import Checkpoint
from weir.training.loop import Progress, Task
from weir.training.recipes import AnyRecipe
from weir.training.run_directory import RunRecord
from weir.training.train import Monitor, prepare, train_experiment


class Silent:
    """A monitor without a console that stops the run after so many steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps = 0
        self.stop_after = stop_after

    def must_stop(self) -> bool:
        return self.stop_after is not None and self.steps >= self.stop_after

    @contextmanager
    def showing(self, epochs: int, task: Task) -> Iterator[Callable[[Progress], None]]:
        def report(progress: Progress) -> None:
            self.steps += bool(progress.step)

        yield report


def train(
    recipe: AnyRecipe,
    out: Path,
    device: torch.device,
    monitor: Monitor,
    resumed: Checkpoint | None,
) -> RunRecord:
    """Prepare the recipe's data and train."""
    return train_experiment(prepare(recipe), out, device, monitor, resumed)
