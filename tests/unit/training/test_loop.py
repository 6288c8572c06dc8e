"""The training loop, on a task with predictable numbers."""

import copy
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.training.errors import DivergedError
from weir.training.loop import (
    Batch,
    Callbacks,
    Progress,
    Task,
    TrainingState,
    copy_weights,
    count_right,
    count_targets,
    evaluate,
    fit,
)
from weir.training.models.layers import WithAuxiliary
from weir.training.optimization import NO_TARGET, UNSEEN, cross_entropy, make_optimizer
from weir.training.recipe import Setting
from weir.training.recipes import AnyRecipe, change_recipe, make_recipe


def make_state(recipe: AnyRecipe) -> TrainingState:
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    optimizer = make_optimizer(network, recipe.optimizer)
    return TrainingState(network, optimizer, copy_weights(network), Progress())


def separable(count: int) -> Batch:
    """Points in the plane, the class being the sign of the first coordinate."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(1))
    return Batch((points,), (points[:, 0] > 0).long())


def make_task(validation: Batch, loss: float = 1.0) -> Task:
    def training(_epoch: int, first: int) -> Iterator[Batch]:
        yield from [separable(32)] * (2 - first)

    def weighted(logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets) * loss

    return Task(2, training, lambda: iter([validation]), weighted)


CALLBACKS = Callbacks(
    must_stop=lambda: False, report=lambda _progress: None, save=lambda _state: None
)


def recipe(**changes: Setting) -> AnyRecipe:
    defaults: dict[str, Setting] = {"epochs": 20, "optimizer": {"learning_rate": 0.1}}
    return make_recipe("lenet5", "digits", **{**defaults, **changes})


def test_learns_what_can_be_learnt() -> None:
    state = make_state(recipe())

    fit(state, make_task(separable(64)), recipe(), CALLBACKS)

    assert state.progress.epoch == 20
    assert (state.progress.history[-1].validation_accuracy or 0.0) > 0.95
    assert state.progress.history[-1].loss < state.progress.history[0].loss


def test_numbers_are_compared_by_their_loss_alone() -> None:
    points = separable(64).inputs[0]
    batch = Batch((points,), points @ torch.tensor([[1.0, 0.0], [2.0, -100.0]]))

    def training(_epoch: int, first: int) -> Iterator[Batch]:
        yield from [batch] * (2 - first)

    task = Task(2, training, lambda: iter([batch]), functional.mse_loss, has_classes=False)
    state = make_state(recipe())

    fit(state, task, recipe(), CALLBACKS)

    history = state.progress.history
    losses = [record.validation_loss for record in history]
    assert losses[state.progress.best_epoch - 1] == min(losses) < losses[0]
    assert all(record.accuracy is record.validation_accuracy is None for record in history)


def test_stops_when_validation_accuracy_no_longer_grows() -> None:
    wrong = separable(64)
    upside_down = Batch(wrong.inputs, 1 - wrong.targets)
    state = make_state(recipe(patience=3))

    fit(state, make_task(upside_down), recipe(patience=3), CALLBACKS)

    accuracies = [record.validation_accuracy or 0.0 for record in state.progress.history]
    training = [record.accuracy or 0.0 for record in state.progress.history]
    best = state.progress.best_epoch
    assert state.progress.epoch == best + 3 < 20
    assert accuracies[best - 1] == max(accuracies)
    assert training[-1] > training[best - 1]


def test_the_weights_kept_are_those_of_the_best_epoch() -> None:
    wrong = separable(64)
    validation = Batch(wrong.inputs, 1 - wrong.targets)
    task = make_task(validation)
    state = make_state(recipe(patience=3))
    fit(state, task, recipe(patience=3), CALLBACKS)
    kept = nn.Linear(2, 2)
    kept.load_state_dict(state.best)

    score = evaluate(kept, [validation], task.loss)

    record = state.progress.history[state.progress.best_epoch - 1]
    assert (score.accuracy, score.loss) == (record.validation_accuracy, record.validation_loss)


def test_the_weights_of_the_last_epoch_are_kept_if_no_choice_is_made() -> None:
    """Validation gets worse with every epoch here, and patience ends nothing."""
    wrong = separable(64)
    task = make_task(Batch(wrong.inputs, 1 - wrong.targets))
    task = dataclasses.replace(task, keeps_last=True)
    state = make_state(recipe(patience=3, epochs=6))
    fit(state, task, recipe(patience=3, epochs=6), CALLBACKS)

    assert state.progress.best_epoch < state.progress.epoch == 6
    accuracies = [record.validation_accuracy or 0.0 for record in state.progress.history]
    assert accuracies[-1] < max(accuracies)
    for name, weights in state.evaluated.state_dict().items():
        torch.testing.assert_close(state.best[name], weights, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(1.0, 0.5), (2.0, 0.7), (0.1, 0.6)], 2),
        ([(1.0, 0.5), (0.5, 0.5), (0.7, 0.5)], 2),
        ([(1.0, 0.5), (1.0, 0.5)], 1),
    ],
    ids=["accuracy before loss", "loss among equals", "the earlier one"],
)
def test_which_epoch_is_best(scores: list[tuple[float, float]], best: int) -> None:
    progress = Progress()

    for loss, accuracy in scores:
        progress.close_epoch(loss, accuracy)

    assert progress.best_epoch == best


def test_macro_f1_chooses_the_epoch_if_it_is_asked_for() -> None:
    progress = Progress()

    for loss, accuracy, f1 in ((0.5, 0.9, 0.3), (0.6, 0.8, 0.5), (0.4, 0.95, 0.4)):
        progress.close_epoch(loss, accuracy, f1)

    assert progress.best_epoch == 2
    assert [epoch.validation_macro_f1 for epoch in progress.history] == [0.3, 0.5, 0.4]


def test_macro_f1_is_over_all_batches() -> None:
    batches = [
        Batch((torch.eye(3)[[0, 0, 1]],), torch.tensor([0, 1, 1])),
        Batch((torch.eye(3)[[0, 2]],), torch.tensor([UNSEEN, NO_TARGET])),
    ]

    score = evaluate(nn.Identity(), batches, lambda logits, _: logits.sum(), has_f1=True)

    # Class 0: 2 x 1 / (3 + 1); class 1: 2 x 1 / (1 + 2); padding counts for nothing.
    assert score.macro_f1 == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert evaluate(nn.Identity(), batches, lambda logits, _: logits.sum()).macro_f1 is None


def test_gradients_are_clipped_by_norm() -> None:
    settings = recipe(
        epochs=1,
        optimizer={"kind": "sgd", "momentum": 0.0, "learning_rate": 1.0, "clip_norm": 0.01},
    )
    settings = settings.model_copy(
        update={"optimizer": settings.optimizer.model_copy(update={"weight_decay": 0.0})}
    )
    state = make_state(settings)
    before = copy_weights(state.network)

    fit(state, make_task(separable(8), loss=1e6), settings, CALLBACKS)

    moved = [
        (now - before[name]).square().sum() for name, now in state.network.state_dict().items()
    ]
    # Two steps, each at most the clipped norm times the peak rate.
    assert 0.0 < float(sum(moved)) ** 0.5 <= 0.02


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(DivergedError, match="the loss became nan; try a lower learning rate"):
        fit(make_state(recipe()), make_task(separable(8), loss=float("nan")), recipe(), CALLBACKS)


def test_bfloat16_forward_passes_train_too() -> None:
    task = make_task(separable(64))
    mixed = Task(task.steps, task.training, task.validation, task.loss, mixed=True)
    state = make_state(recipe())

    fit(state, mixed, recipe(), CALLBACKS)

    assert (state.progress.history[-1].validation_accuracy or 0.0) > 0.9
    assert all(weight.dtype == torch.float32 for weight in state.best.values())


class Headed(nn.Module):
    """A linear network with two auxiliary classifiers in training."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.aux1 = nn.Linear(2, 2)
        self.aux2 = nn.Linear(2, 2)

    def forward(self, points: Tensor) -> Tensor | WithAuxiliary:
        logits: Tensor = self.fc(points)
        if self.training:
            return WithAuxiliary(logits, (self.aux1(points), self.aux2(points)))
        return logits


def test_auxiliary_losses_are_weighed_and_not_reported() -> None:
    settings = recipe(epochs=1, optimizer={"kind": "sgd", "momentum": 0.0, "clip_norm": 100.0})
    settings = change_recipe(settings, optimizer={"weight_decay": 0.0})
    torch.manual_seed(0)
    network = Headed()
    for head in (network.aux1, network.aux2):
        head.load_state_dict(network.fc.state_dict())
    state = TrainingState(network, make_optimizer(network, settings.optimizer), {}, Progress())
    task = replace(make_task(separable(32)), steps=1, auxiliary_weight=0.3)
    before = copy_weights(network)
    alone = functional.cross_entropy(network.fc(separable(32).inputs[0]), separable(32).targets)

    fit(state, replace(task, training=lambda _e, _s: iter([separable(32)])), settings, CALLBACKS)

    moved = {name: now - before[name] for name, now in copy_weights(network).items()}
    torch.testing.assert_close(moved["aux1.weight"], moved["fc.weight"] * 0.3)
    torch.testing.assert_close(moved["aux2.weight"], moved["aux1.weight"])
    assert state.progress.history[0].loss == pytest.approx(alone.item())


def test_the_average_is_what_is_validated_and_kept() -> None:
    settings = recipe(epochs=3, average_decay=0.9)
    state = make_state(settings)
    state.average = copy.deepcopy(state.network)
    task = make_task(separable(64))

    fit(state, task, settings, CALLBACKS)

    last = state.progress.history[-1]
    assert evaluate(state.average, [separable(64)], task.loss).loss == last.validation_loss
    assert evaluate(state.network, [separable(64)], task.loss).loss != last.validation_loss
    assert torch.equal(state.best["weight"], state.average.state_dict()["weight"])


TAGS = torch.tensor([[0, 1, 1], [1, NO_TARGET, NO_TARGET], [UNSEEN, 0, NO_TARGET]])


def test_what_fills_up_is_no_target_and_an_unseen_class_can_only_be_missed() -> None:
    logits = functional.one_hot(torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 0]]), 2)

    assert count_targets(TAGS) == 6
    assert count_right(logits, TAGS) == 4


def test_an_epoch_of_tags_counts_rows_and_targets_by_themselves() -> None:
    batch = Batch((torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(1)),), TAGS)
    task = Task(
        2,
        lambda _epoch, _first: iter([batch, batch]),
        lambda: iter([batch]),
        functools.partial(cross_entropy, smoothing=0.0),
    )
    seen: list[tuple[int, int]] = []
    settings = recipe(epochs=1)
    state = make_state(settings)

    def report(progress: Progress) -> None:
        seen.append((progress.rows, progress.targets))

    fit(state, task, settings, replace(CALLBACKS, report=report))

    logits = state.network(*batch.inputs)
    last = state.progress.history[0]
    assert seen == [(3, 6), (6, 12), (0, 0)]
    assert last.validation_accuracy == count_right(logits, TAGS) / 6
    assert last.validation_loss == pytest.approx(
        functional.cross_entropy(logits[TAGS >= 0], TAGS[TAGS >= 0]).item()
    )
