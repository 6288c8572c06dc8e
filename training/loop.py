"""The training loop, which knows no data set and no kind of network.

    fit → (train the epoch → validate → keep the best → save), until epochs or patience are spent

What differs between pictures and sequences is a `Task`: batches, and a loss. The loop can be stopped
between two steps and go on later from exactly there: all it changes is in `State`, which
`weir.training.checkpoint` writes and reads.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weir.training.average import follow
from weir.training.errors import DivergedError, InterruptedRunError
from weir.training.models.auxiliary import WithAuxiliary
from weir.training.progress import Progress
from weir.training.recipe import Recipe
from weir.training.schedule import learning_rate

Loss = Callable[[Tensor, Tensor], Tensor]


NO_TARGET, UNSEEN = -100, -1


@dataclass(frozen=True, slots=True)
class Partners:
    """What each row was mixed with: the partner's targets, and the row's own share of the mixture."""

    targets: Tensor
    share: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows trained together: the network's arguments, and the class of each target, or its number.

    A class of `NO_TARGET` fills a shorter row up and counts for nothing; one of `UNSEEN`, a class that the
    training data lacks, can only be missed.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    partners: Partners | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What is learnt.

    steps: batches of one epoch.
    training: (epoch, first step) to that epoch's batches from that step on, always the same ones.
    validation: one pass over the validation rows.
    loss: (logits, targets) to a mean over the targets.
    auxiliary_weight: of the loss of each auxiliary classifier, where the network has some in training.
    mixed: run the forward passes of training in bfloat16 where that is safe.
    has_classes: whether targets are classes, so that right answers count; numbers are judged by their loss alone.
    rows_are: what a row is called, for who looks on; `targets_are`, what a target is, if a row has several.
    """

    steps: int
    training: Callable[[int, int], Iterator[Batch]]
    validation: Callable[[], Iterator[Batch]]
    loss: Loss
    auxiliary_weight: float = 0.0
    mixed: bool = False
    has_classes: bool = True
    rows_are: str = "rows"
    targets_are: str | None = None


@dataclass(slots=True)
class State:
    """All that training changes.

    best: the weights after epoch `progress.best_epoch`; of the average, where there is one.
    average: follows the network, where the recipe averages weights; it is what is validated and kept.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor]
    progress: Progress
    average: nn.Module | None = None

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where the loop meets the outside: asked before each step, told after it, called after each epoch."""

    must_stop: Callable[[], bool]
    report: Callable[[Progress], None]
    save: Callable[[State], None]


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss over the targets, and the share that was right, where they are classes."""

    loss: float
    accuracy: float | None


def fit(state: State, task: Task, recipe: Recipe, hooks: Hooks) -> None:
    """Train until the recipe's epochs are done or its patience is spent.

    Raises:
        InterruptedRunError: asked to stop; the state was saved after the last finished step.
        DivergedError: the loss is no longer a number.
    """
    while not is_finished(state.progress, recipe):
        started = time.perf_counter()
        is_whole = _train_epoch(state, task, recipe, hooks)
        score = validate(state.judged, task) if is_whole else None
        state.progress.epoch_seconds += time.perf_counter() - started
        if score is None:
            hooks.save(state)
            raise InterruptedRunError(
                f"stopped in epoch {state.progress.epoch + 1} after step {state.progress.step}"
            )
        if state.progress.close_epoch(score.loss, score.accuracy):
            state.best = copy_weights(state.judged)
        hooks.save(state)
        hooks.report(state.progress)


def is_finished(progress: Progress, recipe: Recipe) -> bool:
    """True when no further epoch is due."""
    waited = progress.epoch - progress.best_epoch
    return progress.epoch >= recipe.epochs or waited >= recipe.patience


def _train_epoch(state: State, task: Task, recipe: Recipe, hooks: Hooks) -> bool:
    """The steps of the running epoch that are still due; false when asked to stop before the last."""
    state.network.train()
    for batch in task.training(state.progress.epoch, state.progress.step):
        if hooks.must_stop():
            return False
        _train_step(state, batch, task, recipe)
        hooks.report(state.progress)
    return True


def _train_step(state: State, batch: Batch, task: Task, recipe: Recipe) -> None:
    """Forward, backward, clip, update, average, count."""
    progress, settings = state.progress, recipe.optimizer
    done = progress.epoch * task.steps + progress.step
    progress.learning_rate = learning_rate(
        done,
        steps=recipe.epochs * task.steps,
        peak=settings.learning_rate,
        warmup_share=settings.warmup_share,
    )
    for group in state.optimizer.param_groups:
        group["lr"] = progress.learning_rate
    with torch.autocast(batch.targets.device.type, torch.bfloat16, enabled=task.mixed):
        answer = _split(state.network(*batch.inputs))
    logits = answer.logits.float()
    loss = mixed_loss(logits, batch, task)
    whole = loss
    for auxiliary in answer.auxiliary:
        whole = whole + task.auxiliary_weight * mixed_loss(auxiliary.float(), batch, task)
    state.optimizer.zero_grad()
    whole.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip_norm)
    state.optimizer.step()
    if state.average is not None:
        follow(state.average, state.network, decay=recipe.average_decay, step=done)
    targets = count_targets(batch.targets)
    progress.loss_sum += _finite(loss) * targets
    if task.has_classes:
        progress.right += count_right(logits, batch.targets)
    progress.targets += targets
    progress.rows += len(batch.targets)
    progress.step += 1


def mixed_loss(logits: Tensor, batch: Batch, task: Task) -> Tensor:
    """The task's loss; of mixed rows, that of their own targets and their partners' in their shares."""
    own = task.loss(logits, batch.targets)
    if batch.partners is None:
        return own
    share = batch.partners.share
    return share * own + (1.0 - share) * task.loss(logits, batch.partners.targets)


def _split(answer: Tensor | WithAuxiliary) -> WithAuxiliary:
    return answer if isinstance(answer, WithAuxiliary) else WithAuxiliary(answer, ())


def validate(network: nn.Module, task: Task) -> Score:
    """Score the network on the task's validation rows."""
    return evaluate(network, task.validation(), task.loss, has_classes=task.has_classes)


@torch.inference_mode()
def evaluate(
    network: nn.Module, batches: Iterable[Batch], loss: Loss, *, has_classes: bool = True
) -> Score:
    """Score the network in eval mode and full precision."""
    network.eval()
    loss_sum, right, targets = 0.0, 0, 0
    for batch in batches:
        logits: Tensor = network(*batch.inputs)
        counted = count_targets(batch.targets)
        loss_sum += _finite(loss(logits, batch.targets)) * counted
        if has_classes:
            right += count_right(logits, batch.targets)
        targets += counted
    return Score(loss_sum / targets, right / targets if has_classes else None)


def count_right(logits: Tensor, targets: Tensor) -> int:
    """How many targets have the highest logit; logits (..., classes), targets (...)."""
    return int((logits.argmax(dim=-1) == targets).sum())


def count_targets(targets: Tensor) -> int:
    """How many there are, without those that fill up; of numbers, none does."""
    if targets.is_floating_point():
        return targets.numel()
    return int((targets != NO_TARGET).sum())


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """The network's weights as they are now, on the CPU, untouched by further training."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _finite(loss: Tensor) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise DivergedError(f"the loss became {value}; try a lower learning rate")
    return value
