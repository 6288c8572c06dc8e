"""One run from beginning to end: data → network → loop → test → run directory.

The weights kept are those of the epoch that did best on the validation rows, which are taken from the
training set. The test set is measured once, with those weights, after training.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from training import checkpoint, device, figures, provenance
from training.data import ImageData, load
from training.data.images import divide
from training.errors import RunError
from training.evaluation import count_confusions
from training.loop import Hooks, State, copy_weights, fit
from training.models import build
from training.optimizers import make_optimizer
from training.pictures import (
    Normaliser,
    in_order,
    make_task,
    measure_normaliser,
    to_device,
)
from training.progress import Progress
from training.recipes import Recipe
from training.run import (
    DataRecord,
    ImageRecord,
    RunRecord,
    save_weights,
    write_record,
)
from training.seeds import Purpose, derive_seed


class Watcher(Protocol):
    """Who looks on: `training.watch.Watch`, or whoever embeds the training."""

    def must_stop(self) -> bool:
        """Asked before each step."""

    def showing(
        self, epochs: int, steps: int
    ) -> AbstractContextManager[Callable[[Progress], None]]:
        """Entered around the loop; gives what is called after each step and each epoch."""


@dataclass(frozen=True, slots=True)
class Sets:
    """The three sets of a run, and how their pictures are normalised."""

    train: ImageData
    validation: ImageData
    test: ImageData
    normaliser: Normaliser


def train(
    recipe: Recipe,
    out: Path,
    where: torch.device,
    watch: Watcher,
    resumed: checkpoint.Checkpoint | None,
) -> RunRecord:
    """Train by a recipe and leave a complete run directory.

    Args:
        recipe: of a resumed run, the checkpoint's.
        out: made if need be; a run already in it stays whole until this one is finished.
        where: computes there.
        watch: is told of progress, and may ask to stop.
        resumed: where to go on from, or none to begin.

    Raises:
        InterruptedRunError: stopped, with a checkpoint in `out`.
        DataError, ModelError, DivergedError: as their docstrings say.
    """
    device.settle_arithmetic(recipe.cpu_threads)
    sets = prepare(recipe)
    state = begin(recipe, sets, where)
    if resumed:
        _require_same_data(sets.train, resumed)
        checkpoint.restore(state, resumed)
    task = make_task(
        to_device(sets.train, where),
        to_device(sets.validation, where),
        sets.normaliser,
        recipe,
        mixed=_is_mixed(recipe, where),
    )

    out.mkdir(parents=True, exist_ok=True)

    def save(reached: State) -> None:
        checkpoint.write_checkpoint(out, reached, recipe, sets.train.checksum)

    with watch.showing(recipe.epochs, task.steps) as report:
        fit(state, task, recipe, Hooks(watch.must_stop, report, save))
    return finish(state, recipe, sets, out, where)


def prepare(recipe: Recipe) -> Sets:
    """Load both splits, and take the validation rows from the training split.

    The test set is read here, unused, so that a broken file shows before the training and not after it.
    """
    size = recipe.image
    given, test = (
        load(
            recipe.data,
            split,
            height=size.height,
            width=size.width,
            channels=size.channels,
            short_side=size.short_side,
        )
        for split in ("train", "test")
    )
    division = divide(
        given.labels, recipe.validation_share, derive_seed(recipe.seed, Purpose.DIVISION)
    )
    kept = given.take(division.kept)
    return Sets(
        train=kept,
        validation=given.take(division.held_out),
        test=test,
        normaliser=measure_normaliser(kept.images, recipe),
    )


def begin(recipe: Recipe, sets: Sets, where: torch.device) -> State:
    """A fresh network and optimiser; the seed decides the weights."""
    torch.manual_seed(recipe.seed)
    network = build(
        recipe.architecture,
        classes=len(sets.train.classes),
        height=recipe.image.height,
        width=recipe.image.width,
        channels=recipe.image.channels,
        auxiliary=recipe.auxiliary_weight > 0.0,
    ).to(where)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, recipe.optimizer)
    average = copy.deepcopy(network) if recipe.average_decay else None
    return State(network, optimizer, copy_weights(network), Progress(), average)


def _is_mixed(recipe: Recipe, where: torch.device) -> bool:
    is_wanted = recipe.mixed_precision and (where.type == "cuda" or recipe.cpu_bfloat16)
    return is_wanted and device.has_mixed_precision(where)


def finish(state: State, recipe: Recipe, sets: Sets, out: Path, where: torch.device) -> RunRecord:
    """Write the weights and the record, test once, record that, and draw the figures."""
    record = _describe(state.progress, recipe, sets, where)
    save_weights(out, state.best)
    write_record(out, record)
    state.network.load_state_dict(state.best)
    confusions = count_confusions(
        state.network, in_order(to_device(sets.test, where), sets.normaliser), len(record.classes)
    )
    record.test_accuracy = float(confusions.trace() / confusions.sum())
    write_record(out, record)
    figures.draw_learning_curve(record, out / figures.LEARNING_CURVE)
    figures.draw_confusion_matrix(record, confusions, out / figures.CONFUSION_MATRIX)
    checkpoint.remove_checkpoint(out)
    return record


def _require_same_data(data: ImageData, resumed: checkpoint.Checkpoint) -> None:
    before = resumed.note.data_checksum
    if data.checksum != before:
        raise RunError(
            f"{data.name}: SHA-256 was {before} when the run began, is {data.checksum}; begin anew"
        )


def _describe(progress: Progress, recipe: Recipe, sets: Sets, where: torch.device) -> RunRecord:
    return RunRecord(
        recipe=recipe,
        architecture=recipe.architecture,
        data=DataRecord(
            name=recipe.data,
            checksum=sets.train.checksum,
            train_rows=len(sets.train.labels),
            validation_rows=len(sets.validation.labels),
            test_rows=len(sets.test.labels),
        ),
        seed=recipe.seed,
        classes=list(sets.train.classes),
        image=ImageRecord(
            **recipe.image.model_dump(),
            mean=list(sets.normaliser.mean),
            std=list(sets.normaliser.std),
            resize="stretch" if recipe.image.short_side is None else "short-side",
        ),
        versions=provenance.versions(),
        commit=provenance.commit(),
        device=device.describe(where),
        epochs=progress.history,
        best_epoch=progress.best_epoch,
        test_accuracy=None,
        seconds=progress.seconds,
    )
