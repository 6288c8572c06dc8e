"""The loop, on a task so small that its numbers can be foreseen."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.errors import DivergedError
from training.loop import Batch, Hooks, State, Task, copy_weights, evaluate, fit
from training.optimizers import make_optimizer
from training.progress import Progress
from training.recipes import Recipe, Setting, make_recipe


def make_state(recipe: Recipe) -> State:
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    optimizer = make_optimizer(network, recipe.optimizer)
    return State(network, optimizer, copy_weights(network), Progress())


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


HOOKS = Hooks(must_stop=lambda: False, report=lambda _progress: None, save=lambda _state: None)


def recipe(**changes: Setting) -> Recipe:
    defaults: dict[str, Setting] = {"epochs": 20, "optimizer": {"learning_rate": 0.1}}
    return make_recipe("lenet5", "digits", **{**defaults, **changes})


def test_learns_what_can_be_learnt() -> None:
    state = make_state(recipe())

    fit(state, make_task(separable(64)), recipe(), HOOKS)

    assert state.progress.epoch == 20
    assert state.progress.history[-1].validation_accuracy > 0.95
    assert state.progress.history[-1].loss < state.progress.history[0].loss


def test_stops_when_validation_accuracy_no_longer_grows() -> None:
    wrong = separable(64)
    upside_down = Batch(wrong.inputs, 1 - wrong.targets)
    state = make_state(recipe(patience=3))

    fit(state, make_task(upside_down), recipe(patience=3), HOOKS)

    accuracies = [record.validation_accuracy for record in state.progress.history]
    training = [record.accuracy for record in state.progress.history]
    best = state.progress.best_epoch
    assert state.progress.epoch == best + 3 < 20
    assert accuracies[best - 1] == max(accuracies)
    assert training[-1] > training[best - 1]


def test_the_weights_kept_are_those_of_the_best_epoch() -> None:
    wrong = separable(64)
    validation = Batch(wrong.inputs, 1 - wrong.targets)
    task = make_task(validation)
    state = make_state(recipe(patience=3))
    fit(state, task, recipe(patience=3), HOOKS)
    kept = nn.Linear(2, 2)
    kept.load_state_dict(state.best)

    score = evaluate(kept, [validation], task.loss)

    record = state.progress.history[state.progress.best_epoch - 1]
    assert (score.accuracy, score.loss) == (record.validation_accuracy, record.validation_loss)


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

    fit(state, make_task(separable(8), loss=1e6), settings, HOOKS)

    moved = [
        (now - before[name]).square().sum() for name, now in state.network.state_dict().items()
    ]
    # Two steps, each at most the clipped norm times the peak rate.
    assert 0.0 < float(sum(moved)) ** 0.5 <= 0.02


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(DivergedError, match="the loss became nan; try a lower learning rate"):
        fit(make_state(recipe()), make_task(separable(8), loss=float("nan")), recipe(), HOOKS)


def test_bfloat16_forward_passes_train_too() -> None:
    task = make_task(separable(64))
    mixed = Task(task.steps, task.training, task.validation, task.loss, mixed=True)
    state = make_state(recipe())

    fit(state, mixed, recipe(), HOOKS)

    assert state.progress.history[-1].validation_accuracy > 0.9
    assert all(weight.dtype == torch.float32 for weight in state.best.values())
