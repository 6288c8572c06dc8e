"""One run from beginning to end: data → network → loop → test → run directory.

The weights kept are those of the epoch that did best on the validation rows. The test set is measured once,
with those weights, after training.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

from weir.training import checkpoint, device, figures, provenance
from weir.training.errors import RunError
from weir.training.experiment import Problem
from weir.training.forecasting.experiment import prepare as prepare_series
from weir.training.forecasting.recipe import SeriesRecipe
from weir.training.images.experiment import prepare as prepare_pictures
from weir.training.images.recipe import PictureRecipe
from weir.training.loop import Hooks, State, Task, copy_weights, fit
from weir.training.optimization import make_optimizer
from weir.training.progress import Progress
from weir.training.recipes import AnyRecipe
from weir.training.run_directory import RunRecord, save_weights, write_record
from weir.training.seq2seq.experiment import prepare as prepare_pairs
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.text.experiment import prepare as prepare_sequences


class Watcher(Protocol):
    """Who looks on: `weir.training.console.Watch`, or whoever embeds the training."""

    def must_stop(self) -> bool:
        """Asked before each step."""

    def showing(
        self, epochs: int, task: Task
    ) -> AbstractContextManager[Callable[[Progress], None]]:
        """Entered around the loop; gives what is called after each step and each epoch."""


def train(
    recipe: AnyRecipe,
    out: Path,
    where: torch.device,
    watch: Watcher,
    resumed: checkpoint.Checkpoint | None,
) -> RunRecord:
    """Read the data and train by a recipe; of a resumed run, the checkpoint's. See `learn`."""
    return learn(prepare(recipe), out, where, watch, resumed)


def learn(
    problem: Problem,
    out: Path,
    where: torch.device,
    watch: Watcher,
    resumed: checkpoint.Checkpoint | None,
) -> RunRecord:
    """Train and leave a complete run directory.

    Args:
        problem: as `prepare` gave it.
        out: made if need be; a run already in it stays whole until this one is finished.
        where: computes there.
        watch: is told of progress, and may ask to stop.
        resumed: where to go on from, or none to begin.

    Raises:
        InterruptedRunError: stopped, with a checkpoint in `out`.
        DataError, ModelError, DivergedError: as their docstrings say.
    """
    recipe = problem.recipe
    state = begin(problem, where)
    if resumed:
        _require_same_data(problem, resumed)
        checkpoint.restore(state, resumed)
    task = problem.make_task(where, mixed=_is_mixed(recipe, where))
    out.mkdir(parents=True, exist_ok=True)

    def save(reached: State) -> None:
        checkpoint.write_checkpoint(out, reached, recipe, problem.checksum)

    with watch.showing(recipe.epochs, task) as report:
        fit(state, task, recipe, Hooks(watch.must_stop, report, save))
    return finish(state, problem, out, where)


def prepare(recipe: AnyRecipe) -> Problem:
    """Read the recipe's data, all of them, so that a broken file shows before the training.

    Arithmetic is settled first: sums over the data belong to the run as well.
    """
    device.settle_arithmetic(recipe.cpu_threads)
    if isinstance(recipe, PictureRecipe):
        return prepare_pictures(recipe)
    if isinstance(recipe, SeriesRecipe):
        return prepare_series(recipe)
    if isinstance(recipe, Seq2SeqRecipe):
        return prepare_pairs(recipe)
    return prepare_sequences(recipe)


def begin(problem: Problem, where: torch.device) -> State:
    """A fresh network and optimiser; the seed decides the weights."""
    recipe = problem.recipe
    torch.manual_seed(recipe.seed)
    network = problem.build().to(where)
    optimizer = make_optimizer(network, recipe.optimizer)
    average = copy.deepcopy(network) if recipe.average_decay else None
    return State(network, optimizer, copy_weights(network), Progress(), average)


def _is_mixed(recipe: AnyRecipe, where: torch.device) -> bool:
    is_wanted = recipe.mixed_precision and (where.type == "cuda" or recipe.cpu_bfloat16)
    return is_wanted and device.has_mixed_precision(where)


def finish(state: State, problem: Problem, out: Path, where: torch.device) -> RunRecord:
    """Write the weights and the record, test once, record that, and draw the figures."""
    record = _describe(state.progress, problem, where)
    save_weights(out, state.best)
    state.network.load_state_dict(state.best)
    problem.leave(out)
    write_record(out, record)
    tested = problem.test(state.network, where, out)
    record.test_accuracy, record.test_metrics = tested.accuracy, tested.metrics
    record.test_notes = tested.notes
    write_record(out, record)
    figures.draw_learning_curve(record, out / figures.LEARNING_CURVE)
    if tested.confusions is not None:
        figures.draw_confusion_matrix(record, tested.confusions, out / figures.CONFUSION_MATRIX)
    checkpoint.remove_checkpoint(out)
    return record


def _require_same_data(problem: Problem, resumed: checkpoint.Checkpoint) -> None:
    before = resumed.note.data_checksum
    if problem.checksum != before:
        raise RunError(
            f"{problem.recipe.data}: SHA-256 was {before} when the run began, is {problem.checksum}; begin anew"
        )


def _describe(progress: Progress, problem: Problem, where: torch.device) -> RunRecord:
    recipe, described = problem.recipe, problem.describe()
    return RunRecord(
        recipe=recipe,
        architecture=recipe.architecture,
        task=recipe.task,
        data=described.data,
        seed=recipe.seed,
        classes=list(described.classes),
        image=described.image,
        sequence=described.sequence,
        series=described.series,
        pairs=described.pairs,
        versions=provenance.versions(),
        commit=provenance.commit(),
        device=device.describe(where),
        epochs=progress.history,
        best_epoch=progress.best_epoch,
        test_accuracy=None,
        seconds=progress.seconds,
    )
