"""The training loop. It knows no data set and no architecture.

    fit → (train an epoch → validate → keep the best weights → save) until epochs or patience end

A `Task` holds what differs between images, sequences, pairs and series: batches and a loss. The
loop can stop between two steps and resume from exactly there: everything it changes is in
`TrainingState`, which `weir.training.checkpoint` writes and reads.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from weir.training.class_scores import Numbers, macro_f1
from weir.training.distributed import ALONE, ProcessGroup
from weir.training.errors import DivergedError, InterruptedRunError
from weir.training.models.layers import WithAuxiliary
from weir.training.optimization import NO_TARGET, Loss, learning_rate, update_average
from weir.training.recipe import Recipe
from weir.training.run_directory import EpochRecord


@dataclass(frozen=True, slots=True)
class MixupPartners:
    """The targets of each row's mixup partner, and the row's own share of the mixture."""

    targets: Tensor
    share: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows trained together: the network's arguments, and each target's class or number.

    The class `NO_TARGET` is padding and counts for nothing. The class `UNSEEN` is missing from the
    training data and always counts as an error.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    partners: MixupPartners | None = None

    def take(self, rows: slice) -> "Batch":
        """Some of the rows, padded as the whole batch is."""
        partners = self.partners
        if partners is not None:
            partners = replace(partners, targets=partners.targets[rows])
        return Batch(tuple(each[rows] for each in self.inputs), self.targets[rows], partners)


@dataclass(frozen=True, slots=True)
class Task:
    """What the loop optimises: the batches and the loss.

    steps: batches of one epoch.
    training: (epoch, first step) to that epoch's batches from that step on; always the same ones.
    validation: one pass over the validation rows.
    loss: (logits, targets) to a mean over the targets.
    auxiliary_weight: factor of each auxiliary classifier's loss, if the network has some.
    mixed: whether the forward passes of training run in bfloat16, where that is safe.
    has_classes: whether targets are classes and have an accuracy; numbers have a loss only.
    chooses_by_f1: whether the best epoch has the highest macro F1, not the highest accuracy.
    keeps_last: whether the last epoch's weights are kept; patience then ends nothing, as the
        learning rate falls to zero at the end alone.
    rows_are, targets_are: what progress calls a row and, if a row has several, a target.
    """

    steps: int
    training: Callable[[int, int], Iterator[Batch]]
    validation: Callable[[], Iterator[Batch]]
    loss: Loss
    auxiliary_weight: float = 0.0
    mixed: bool = False
    has_classes: bool = True
    chooses_by_f1: bool = False
    keeps_last: bool = False
    rows_are: str = "rows"
    targets_are: str | None = None


class Progress(BaseModel):
    """Counters of a run, as JSON in each checkpoint; sums are over the current epoch's targets."""

    model_config = ConfigDict(extra="forbid")

    epoch: int = Field(default=0, description="finished epochs")
    step: int = Field(default=0, description="finished steps of the current epoch")
    learning_rate: float = Field(default=0.0, description="of the last step")
    loss_sum: float = 0.0
    right: int = 0
    targets: int = 0
    rows: int = 0
    epoch_seconds: float = 0.0
    best_epoch: int = Field(default=0, description="from 1; 0 before the first")
    history: list[EpochRecord] = []

    @property
    def loss(self) -> float:
        """Mean training loss of the epoch so far."""
        return self.loss_sum / max(self.targets, 1)

    @property
    def accuracy(self) -> float:
        """Accuracy on the epoch's augmented targets so far."""
        return self.right / max(self.targets, 1)

    @property
    def seconds(self) -> float:
        """Time spent in training and validation, over all sessions."""
        return sum(record.seconds for record in self.history) + self.epoch_seconds

    def close_epoch(
        self,
        validation_loss: float,
        validation_accuracy: float | None,
        validation_macro_f1: float | None = None,
    ) -> bool:
        """Append the epoch to the history and start the next; return whether it is the best.

        The best epoch has the highest macro F1, if there is one, or the highest validation
        accuracy. Equal ones, and targets that are numbers, are compared by the lower loss.
        """
        self.epoch += 1
        record = EpochRecord(
            epoch=self.epoch,
            learning_rate=self.learning_rate,
            loss=self.loss,
            accuracy=None if validation_accuracy is None else self.accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            validation_macro_f1=validation_macro_f1,
            seconds=self.epoch_seconds,
        )
        is_best = self.best_epoch == 0 or _rank(record) > _rank(self.history[self.best_epoch - 1])
        self.history.append(record)
        if is_best:
            self.best_epoch = self.epoch
        self.step, self.loss_sum, self.right, self.targets, self.rows = 0, 0.0, 0, 0, 0
        self.epoch_seconds = 0.0
        return is_best


def _rank(record: EpochRecord) -> tuple[float, float]:
    score = record.validation_macro_f1
    return (record.validation_accuracy or 0.0) if score is None else score, -record.validation_loss


@dataclass(slots=True)
class TrainingState:
    """Everything that training changes.

    best: the weights after epoch `progress.best_epoch`, or after the last one if the recipe keeps
        that; the averaged ones if there is an average.
    average: moving average of the network's weights, if the recipe asks for one.
    parallel: the network as `ProcessGroup.wrap` returns it, if there are several processes.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor]
    progress: Progress
    average: nn.Module | None = None
    parallel: nn.Module | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the average, if there is one."""
        return self.network if self.average is None else self.average


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the loop calls: before each step, after each step or epoch, and after each epoch."""

    must_stop: Callable[[], bool]
    report: Callable[[Progress], None]
    save: Callable[[TrainingState], None]


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss over the targets, their accuracy if they are classes, and macro F1 if asked for."""

    loss: float
    accuracy: float | None
    macro_f1: float | None = None


def fit(
    state: TrainingState,
    task: Task,
    recipe: Recipe,
    callbacks: Callbacks,
    group: ProcessGroup = ALONE,
) -> None:
    """Train until the recipe's epochs or its patience end.

    Args:
        group: the processes that train together; all of them call this.

    Raises:
        InterruptedRunError: a stop is requested; the state is saved after the last finished step.
        DivergedError: the loss is not finite.
    """
    progress = state.progress
    while progress.epoch < recipe.epochs and (
        task.keeps_last or progress.epoch - progress.best_epoch < recipe.patience
    ):
        started = time.perf_counter()
        is_whole = _train_epoch(state, task, recipe, callbacks, group)
        score = None
        if is_whole:
            score = evaluate(
                state.evaluated,
                task.validation(),
                task.loss,
                has_classes=task.has_classes,
                has_f1=task.chooses_by_f1,
                group=group,
            )
        progress.epoch_seconds += time.perf_counter() - started
        if score is None:
            callbacks.save(state)
            raise InterruptedRunError(
                f"stopped in epoch {progress.epoch + 1} after step {progress.step}"
            )
        is_best = progress.close_epoch(score.loss, score.accuracy, score.macro_f1)
        if is_best or task.keeps_last:
            state.best = copy_weights(state.evaluated)
        callbacks.save(state)
        callbacks.report(progress)


def count_validation_targets(task: Task) -> int:
    """Count the targets of one validation pass, without padding."""
    return sum(count_targets(batch.targets) for batch in task.validation())


def _train_epoch(
    state: TrainingState,
    task: Task,
    recipe: Recipe,
    callbacks: Callbacks,
    group: ProcessGroup,
) -> bool:
    """Run the epoch's remaining steps; return False if a stop is requested before the last."""
    state.network.train()
    for batch in task.training(state.progress.epoch, state.progress.step):
        if group.any(callbacks.must_stop()):
            return False
        _train_step(state, batch, task, recipe, group)
        callbacks.report(state.progress)
    return True


def _train_step(
    state: TrainingState, batch: Batch, task: Task, recipe: Recipe, group: ProcessGroup
) -> None:
    """Forward, backward, clip, update, average, count."""
    progress, settings = state.progress, recipe.optimizer
    done = progress.epoch * task.steps + progress.step
    progress.learning_rate = learning_rate(
        done,
        steps=recipe.epochs * task.steps,
        peak=settings.learning_rate,
        warmup_share=settings.warmup_share,
    )
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = progress.learning_rate
    group.seed_dropout(recipe.seed, progress.epoch, progress.step)
    own, own_share = _share(batch, group)
    with torch.autocast(batch.targets.device.type, torch.bfloat16, enabled=task.mixed):
        output: Tensor | WithAuxiliary = (state.parallel or state.network)(*own.inputs)
    if not isinstance(output, WithAuxiliary):
        output = WithAuxiliary(output, ())
    logits = output.logits.float()
    loss = mixup_loss(logits, own, task)
    total = loss
    for auxiliary in output.auxiliary:
        total = total + task.auxiliary_weight * mixup_loss(auxiliary.float(), own, task)
    if group.world_size > 1:
        # From a mean over the process's own targets to one over those of the batch.
        total = total * (own_share * group.world_size)
    state.optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip_norm)
    state.optimizer.step()
    if state.average is not None:
        update_average(state.average, state.network, decay=recipe.average_decay, step=done)
    targets = count_targets(batch.targets)
    right = count_right(logits, own.targets) if task.has_classes and own_share else 0
    mean_loss, all_right = group.sum(loss.item() * own_share, right)
    progress.loss_sum += _finite(mean_loss) * targets
    progress.right += int(all_right)
    progress.targets += targets
    progress.rows += len(batch.targets)
    progress.step += 1


def _share(batch: Batch, group: ProcessGroup) -> tuple[Batch, float]:
    """The rows of a batch that this process computes, and their share of its targets, 0 to 1.

    A process without a row, because there are fewer rows than processes, computes the first one as
    a share of 0: gradients are exchanged among all processes.
    """
    if group.world_size == 1:
        return batch, 1.0
    own = batch.take(group.share(len(batch.targets)))
    if not len(own.targets):
        return batch.take(slice(1)), 0.0
    return own, count_targets(own.targets) / max(count_targets(batch.targets), 1)


def mixup_loss(logits: Tensor, batch: Batch, task: Task) -> Tensor:
    """The task's loss; mixed rows weigh their own and their partners' by their shares."""
    own = task.loss(logits, batch.targets)
    if batch.partners is None:
        return own
    share = batch.partners.share
    return share * own + (1.0 - share) * task.loss(logits, batch.partners.targets)


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    *,
    has_classes: bool = True,
    has_f1: bool = False,
    group: ProcessGroup = ALONE,
) -> Score:
    """Score the network in eval mode and full precision; the processes share each batch."""
    network.eval()
    loss_sum, right, targets = 0.0, 0, 0
    predicted: list[Tensor] = []
    expected: list[Tensor] = []
    for batch in batches:
        own, own_share = _share(batch, group)
        if not own_share:
            continue
        counted = count_targets(own.targets)
        logits: Tensor = network(*own.inputs)
        loss_sum += _finite(loss(logits, own.targets).item()) * counted
        if has_classes:
            right += count_right(logits, own.targets)
        if has_f1:
            is_target = own.targets != NO_TARGET
            predicted.append(logits.argmax(dim=-1)[is_target].cpu())
            expected.append(own.targets[is_target].cpu())
        targets += counted
    loss_sum, all_right, all_targets = group.sum(loss_sum, right, targets)
    return Score(
        loss=loss_sum / all_targets,
        accuracy=all_right / all_targets if has_classes else None,
        macro_f1=macro_f1(_join(predicted, group), _join(expected, group)) if has_f1 else None,
    )


def count_right(logits: Tensor, targets: Tensor) -> int:
    """Count the targets with the highest logit; logits (..., classes), targets (...)."""
    return int((logits.argmax(dim=-1) == targets).sum())


def count_targets(targets: Tensor) -> int:
    """Count the targets without padding; numbers have none."""
    if targets.is_floating_point():
        return targets.numel()
    return int((targets != NO_TARGET).sum())


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """Copy the network's current weights to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _join(parts: list[Tensor], group: ProcessGroup) -> Numbers:
    """The classes of all batches and processes, (targets,)."""
    own = torch.cat(parts).numpy() if parts else np.zeros(0, np.int64)
    return np.concatenate(group.gather(own))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise DivergedError(f"the loss became {value}; try a lower learning rate")
    return value
