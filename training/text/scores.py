"""What a network answers on sequences, scored in the field's own terms by scikit-learn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import (  # type: ignore[import-untyped]
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)
from torch import Tensor, nn

from weir.training.experiment import Evaluation
from weir.training.loop import Batch
from weir.training.optimization import NO_TARGET

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers and what was right, (targets,) each; a right class may be one that training lacked (-1).

    wholly_right: (rows,) bool for each sentence that was tagged, whether every tag was right; none where
    sentences are classified.
    """

    given: Numbers
    right: Numbers
    wholly_right: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One line of the table of classes."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@torch.inference_mode()
def answer(network: nn.Module, batches: Iterable[Batch]) -> Answers:
    """Ask the network, in eval mode."""
    network.eval()
    given: list[Tensor] = []
    right: list[Tensor] = []
    wholly: list[Tensor] = []
    for batch in batches:
        chosen = network(*batch.inputs).argmax(dim=-1)
        is_target = batch.targets != NO_TARGET
        given.append(chosen[is_target].cpu())
        right.append(batch.targets[is_target].cpu())
        if batch.targets.ndim > 1:
            wholly.append(((chosen == batch.targets) | ~is_target).all(dim=1).cpu())
    return Answers(
        given=torch.cat(given).numpy(),
        right=torch.cat(right).numpy(),
        wholly_right=torch.cat(wholly).numpy() if wholly else None,
    )


def score(answers: Answers, classes: int) -> Evaluation:
    """Accuracy over the targets, macro F1 over the classes that occur, and whole sentences."""
    metrics = {
        "macro_f1": float(
            f1_score(
                answers.right,
                answers.given,
                labels=np.unique(answers.right[answers.right >= 0]),
                average="macro",
                zero_division=0.0,
            )
        )
    }
    if answers.wholly_right is not None:
        metrics["sentence_accuracy"] = float(answers.wholly_right.mean())
    known = answers.right >= 0
    counts = confusion_matrix(answers.right[known], answers.given[known], labels=range(classes))
    return Evaluation(float(accuracy_score(answers.right, answers.given)), counts, metrics)


def tabulate(answers: Answers, classes: Sequence[str]) -> list[ClassScore]:
    """Every class that occurs, the most frequent first."""
    columns = precision_recall_fscore_support(
        answers.right, answers.given, labels=range(len(classes)), zero_division=0.0
    )
    table = [
        ClassScore(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(classes, *columns, strict=True)
        if support
    ]
    return sorted(table, key=lambda line: (-line.support, line.label))
