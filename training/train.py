"""A training run from its options to its run directory: data → network → loop → test → files.

The weights kept are those of the best epoch on the validation rows, or of the last epoch if these
rows are too few for a choice or the recipe says so. The test set is evaluated once, with those
weights, after training.
"""

import copy
import logging
import math
from collections.abc import Callable, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from weir.training import figures, reproducibility
from weir.training.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    read_checkpoint,
    restore,
    write_checkpoint,
)
from weir.training.data import DATA_SETS, PAIR_SETS, TEXT_SETS
from weir.training.data.hub import HubName, is_hub
from weir.training.data.series import SERIES_SETS
from weir.training.distributed import ALONE, ProcessGroup
from weir.training.errors import RecipeError, RunError
from weir.training.event_file import EventFile, require_tensorboard
from weir.training.forecasting.experiment import SeriesExperiment
from weir.training.forecasting.experiment import prepare as prepare_series
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.images.experiment import prepare as prepare_images
from weir.training.images.recipes import ImageRecipe
from weir.training.loop import (
    Callbacks,
    Progress,
    Task,
    TrainingState,
    copy_weights,
    count_validation_targets,
    fit,
)
from weir.training.optimization import make_optimizer
from weir.training.recipe import Setting
from weir.training.recipes import (
    MADE_FOR,
    AnyRecipe,
    change_recipe,
    make_recipe,
    quicken,
    require_applicable,
)
from weir.training.reproducibility import DeviceName
from weir.training.run_directory import (
    INPUT_FIELDS,
    RECORD,
    DataRecord,
    Evaluation,
    InputRecord,
    RunRecord,
    SeriesRecord,
    SplitRecord,
    read_record,
    save_weights,
    write_record,
)
from weir.training.seq2seq.experiment import prepare as prepare_pairs
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.text.experiment import SequenceExperiment
from weir.training.text.experiment import prepare as prepare_sequences
from weir.training.text.gradients import log_gradients
from weir.training.text.recipes import SequenceRecipe

logger = logging.getLogger(__name__)

FEWEST_TO_CHOOSE = 100
"""Validation targets that tell epochs apart; docs/training.md has the reason."""


class Monitor(Protocol):
    """Follows a run and may stop it, as `weir.training.console.ConsoleMonitor` does."""

    def must_stop(self) -> bool:
        """Return whether to stop; called before each step."""

    def showing(
        self, epochs: int, task: Task
    ) -> AbstractContextManager[Callable[[Progress], None]]:
        """Open for the whole loop; yields the function to call after each step and epoch."""


class Experiment(Protocol):
    """A recipe with its data in memory: everything in a run that depends on its kind."""

    @property
    def recipe(self) -> AnyRecipe:
        """The recipe that the data were prepared by."""

    @property
    def checksum(self) -> str:
        """SHA-256 over the source files of the data."""

    @property
    def split_checksums(self) -> SplitRecord:
        """SHA-256 of the source of the training, the validation and the test rows."""

    @property
    def train(self) -> Sized:
        """The training rows."""

    @property
    def validation(self) -> Sized:
        """The rows that choose the best epoch."""

    @property
    def held_out(self) -> Sized:
        """The test rows."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the targets, if they are classes."""

    @property
    def record(self) -> InputRecord:
        """The network's input."""

    def build(self) -> nn.Module:
        """Build the network with fresh weights from torch's global generator."""

    def make_task(self, device: torch.device, *, mixed: bool) -> Task:
        """Return the batches, on a device, and the loss."""

    def write_files(self, out: Path) -> None:
        """Write what the network needs beside its weights and record into the run directory."""

    def test(self, network: nn.Module, device: torch.device, out: Path) -> Evaluation:
        """Evaluate the network on the test set, and draw the figures of this kind."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Options of a run; None leaves a setting to the recipe, or to the checkpoint."""

    recipe: str
    data: str | None = None
    out: Path | None = None
    device: DeviceName = "auto"
    resume: bool = False
    overwrite: bool = False
    quick: bool = False
    log_gradients: bool = False
    log: Literal["tensorboard"] | None = None
    changes: dict[str, Setting] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The run directory."""
        data = self.data or MADE_FOR.get(self.recipe, ("",))[0]
        data = HubName.parse(data).source if is_hub(data) else data
        return self.out or Path("runs") / f"{self.recipe}-{Path(data).name}"


def run_training(
    options: TrainingOptions, monitor: Monitor, group: ProcessGroup = ALONE
) -> RunRecord:
    """Train with these options; resuming a finished run returns its record.

    Raises:
        TrainingError: as `train_experiment` says, and
        RunError: the directory is in use, or holds nothing to resume;
        RecipeError: settings that differ from those of the resumed run, or that have no effect.
    """
    _require_possible(options)
    device = group.choose_device(options.device)
    out = options.directory
    if options.resume and (out / RECORD).is_file() and not (out / CHECKPOINT).is_file():
        record = read_record(out)
        _require_same_recipe(options, record.recipe)
        if options.log_gradients or options.log:
            option = "log-gradients" if options.log_gradients else "log"
            raise RunError(f"{out}: --{option} goes with a training, this run is finished")
        return record
    if not options.resume and not options.overwrite:
        used = [name for name in (RECORD, CHECKPOINT) if (out / name).exists()]
        if used:
            raise RunError(
                f"{out}: holds a run already ({used[0]}); name another --out, or add --resume or "
                "--overwrite"
            )
    resumed = read_checkpoint(out) if options.resume else None
    recipe = _require_same_recipe(options, resumed.note.recipe) if resumed else _recipe_of(options)
    if options.log_gradients and not isinstance(recipe, SequenceRecipe):
        raise RecipeError(f"{recipe.name}: gradients by time lag are of sequences only")
    experiment = _prepare_in_turn(recipe, group)
    record = train_experiment(
        experiment, out, device, monitor, resumed, log=options.log, group=group
    )
    if options.log_gradients and isinstance(experiment, SequenceExperiment) and group.is_main:
        log_gradients(experiment, out)
    return record


def _require_possible(options: TrainingOptions) -> None:
    """Refuse options that exclude each other, and those whose packages are not installed."""
    for option, is_given in (("quick", options.quick), ("overwrite", options.overwrite)):
        if is_given and options.resume:
            raise RecipeError(
                f"--{option} goes with a run that begins, got --resume too; a resumed run keeps "
                "its settings"
            )
    if options.log:
        require_tensorboard()


def _recipe_of(options: TrainingOptions) -> AnyRecipe:
    recipe = make_recipe(options.recipe, _full_path(options.data) if options.data else None)
    recipe = change_recipe(recipe, **options.changes)
    if options.quick:
        # The options come after the quick form's settings too.
        recipe = change_recipe(quicken(recipe), **options.changes)
    require_applicable(recipe, options.changes)
    return recipe


def _full_path(data: str) -> str:
    """A data set's name as it is; a path in full, so that the run is readable from anywhere."""
    if is_hub(data):
        return str(HubName.parse(data))
    named = (*DATA_SETS, *TEXT_SETS, *PAIR_SETS, *SERIES_SETS)
    return data if data in named else str(Path(data).resolve())


def _require_same_recipe(options: TrainingOptions, began: AnyRecipe) -> AnyRecipe:
    """Return the recipe that the run began with; refuse options that differ from it."""
    data = {"data": _full_path(options.data)} if options.data else {}
    requested = change_recipe(began, name=options.recipe, **data, **options.changes)
    require_applicable(requested, options.changes)
    before, now = began.model_dump(), requested.model_dump()
    for key, value in before.items():
        if now[key] != value:
            raise RecipeError(
                f"{options.directory}: the run began with {key} {value}, got {now[key]}; "
                "a resumed run keeps its settings"
            )
    return began


def prepare(recipe: AnyRecipe) -> Experiment:
    """Read all of the recipe's data, so that a broken file shows before the training.

    Arithmetic is made deterministic first: sums over the data are part of the run too.
    """
    reproducibility.make_deterministic(recipe.cpu_threads)
    if isinstance(recipe, ImageRecipe):
        return prepare_images(recipe)
    if isinstance(recipe, SeriesRecipe):
        return prepare_series(recipe)
    if isinstance(recipe, Seq2SeqRecipe):
        return prepare_pairs(recipe)
    return prepare_sequences(recipe)


def _prepare_in_turn(recipe: AnyRecipe, group: ProcessGroup) -> Experiment:
    """As `prepare`, on each machine one process first: it alone downloads what is missing."""
    if group.local_rank > 0:
        group.barrier()
    experiment = prepare(recipe)
    if group.local_rank == 0:
        group.barrier()
    return experiment


def train_experiment(
    experiment: Experiment,
    out: Path,
    device: torch.device,
    monitor: Monitor,
    resumed: Checkpoint | None,
    *,
    log: Literal["tensorboard"] | None = None,
    group: ProcessGroup = ALONE,
) -> RunRecord:
    """Train and leave a complete run directory.

    Args:
        out: created if missing; an earlier run in it stays whole until this one is finished.
        resumed: the checkpoint to resume; None starts a new run.
        log: whether an event file is written too, see `weir.training.event_file`.
        group: the processes that train together. All of them call this; process 0 writes the run
            directory and tests, and the records of the others lack the test.

    Raises:
        InterruptedRunError: the run is stopped, with a checkpoint in `out`.
        DataError, ModelError, DivergedError: as their docstrings say.
    """
    recipe = experiment.recipe
    begun = resumed.note.progress if resumed else Progress()
    place = f"SHA-256 {experiment.checksum}, epoch {begun.epoch + 1}, step {begun.step}"
    group.require_equal(f"{recipe.data}: data and checkpoint", place)
    state = _initialise(experiment, device, group)
    if resumed:
        before = resumed.note.data_checksum
        if experiment.checksum != before:
            raise RunError(
                f"{recipe.data}: SHA-256 was {before} when the run began, "
                f"is {experiment.checksum}; begin anew"
            )
        restore(state, resumed)
    progress = state.progress
    wants_mixed = recipe.mixed_precision and (device.type == "cuda" or recipe.cpu_bfloat16)
    is_mixed = wants_mixed and reproducibility.has_bfloat16(device)
    task = _with_choice_of_epoch(experiment.make_task(device, mixed=is_mixed), recipe)
    if group.is_main:
        out.mkdir(parents=True, exist_ok=True)

    def save(reached: TrainingState) -> None:
        if group.is_main:
            write_checkpoint(out, reached, recipe, experiment.checksum)
        # A process that leaves after an interruption ends the others: not before it is written.
        group.barrier()

    with _open_events(log if group.is_main else None, out, experiment, progress) as events:

        def report_all(progress: Progress) -> None:
            report(progress)
            if events and not progress.step:
                events.write_epoch(progress.history[-1])

        with monitor.showing(recipe.epochs, task) as report:
            fit(state, task, recipe, Callbacks(monitor.must_stop, report_all, save), group)
        if not group.is_main:
            return _make_record(progress, experiment, device, keeps_last=task.keeps_last)
        record = _finish(state, experiment, out, device, keeps_last=task.keeps_last)
        if events:
            events.finish(record)
    return record


def _open_events(
    log: Literal["tensorboard"] | None, out: Path, experiment: Experiment, progress: Progress
) -> AbstractContextManager[EventFile | None]:
    if log is None:
        return nullcontext()
    inputs = experiment.record
    std = inputs.std[0] if isinstance(inputs, SeriesRecord) else None
    return EventFile(out, experiment.recipe, progress.history, std)


def _with_choice_of_epoch(task: Task, recipe: AnyRecipe) -> Task:
    """Keep the epoch that the recipe says: the last if validation targets are too few, and say so.

    The user's own validation file decides at any size. Series are chosen by their error, which
    differs more between epochs than an accuracy does.
    """
    if recipe.keep != "auto":
        return replace(task, keeps_last=recipe.keep == "last")
    has_file = isinstance(recipe, SequenceRecipe | Seq2SeqRecipe) and recipe.dev is not None
    if not task.has_classes or has_file:
        return task
    count = count_validation_targets(task)
    if count >= FEWEST_TO_CHOOSE:
        return task
    # Two standard errors of an accuracy of 90 %.
    margin = 200.0 * math.sqrt(0.9 * 0.1 / count)
    hint = "; --dev FILE gives more" if isinstance(recipe, SequenceRecipe | Seq2SeqRecipe) else ""
    logger.warning(
        "validation: %d %s are too few to tell epochs apart (an accuracy of 90 %% is uncertain "
        "by ± %.0f points): the last epoch is kept, not the best%s; --keep best keeps the best",
        count, task.targets_are or task.rows_are, margin, hint,
    )  # fmt: skip
    return replace(task, keeps_last=True)


def _initialise(experiment: Experiment, device: torch.device, group: ProcessGroup) -> TrainingState:
    """Build the network, with weights from the recipe's seed, and its optimiser."""
    recipe = experiment.recipe
    torch.manual_seed(recipe.seed)
    network = group.synchronise_batch_norm(experiment.build().to(device), device)
    optimizer = make_optimizer(network, recipe.optimizer)
    average = copy.deepcopy(network) if recipe.average_decay else None
    best, parallel = copy_weights(network), group.wrap(network)
    return TrainingState(network, optimizer, best, Progress(), average, parallel)


def _finish(
    state: TrainingState,
    experiment: Experiment,
    out: Path,
    device: torch.device,
    *,
    keeps_last: bool,
) -> RunRecord:
    """Write the weights and the record, test once, record the result, and draw the figures."""
    state.network.load_state_dict(state.best)
    if isinstance(experiment, SeriesExperiment):
        experiment = experiment.settle(state.network, device)
    record = _make_record(state.progress, experiment, device, keeps_last=keeps_last)
    save_weights(out, copy_weights(state.network))
    experiment.write_files(out)
    write_record(out, record)
    evaluation = experiment.test(state.network, device, out)
    record.test_accuracy, record.test_metrics = evaluation.accuracy, evaluation.metrics
    record.test_notes = evaluation.notes
    write_record(out, record)
    figures.draw_learning_curve(record, out / figures.LEARNING_CURVE)
    if evaluation.confusions is not None:
        figures.draw_confusion_matrix(record, evaluation.confusions, out / figures.CONFUSION_MATRIX)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return record


def _make_record(
    progress: Progress, experiment: Experiment, device: torch.device, *, keeps_last: bool
) -> RunRecord:
    recipe, record = experiment.recipe, experiment.record
    inputs: dict[str, Any] = {INPUT_FIELDS[type(record)]: record}
    return RunRecord(
        recipe=recipe,
        architecture=recipe.architecture,
        task=recipe.task,
        data=DataRecord(
            name=recipe.data,
            checksum=experiment.checksum,
            split_checksums=experiment.split_checksums,
            train_rows=len(experiment.train),
            validation_rows=len(experiment.validation),
            test_rows=len(experiment.held_out),
        ),
        seed=recipe.seed,
        classes=list(experiment.classes),
        **inputs,
        versions=reproducibility.versions(),
        commit=reproducibility.commit(),
        device=reproducibility.device_name(device),
        epochs=progress.history,
        best_epoch=progress.epoch if keeps_last else progress.best_epoch,
        keeps_last=keeps_last,
        test_accuracy=None,
        seconds=progress.seconds,
    )
