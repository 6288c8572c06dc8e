"""Scores of sequence classifiers and taggers, computed by scikit-learn."""

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
class Predictions:
    """Predicted and true classes, (targets,) each; a class unseen in training is -1.

    correct_rows: (rows,) bool, whether all tags of a row are correct; None for classification.
    """

    predicted: Numbers
    expected: Numbers
    correct_rows: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of one class."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@torch.inference_mode()
def predict(network: nn.Module, batches: Iterable[Batch]) -> Predictions:
    """Run the network in eval mode over all batches."""
    network.eval()
    predicted: list[Tensor] = []
    expected: list[Tensor] = []
    correct_rows: list[Tensor] = []
    for batch in batches:
        chosen = network(*batch.inputs).argmax(dim=-1)
        is_target = batch.targets != NO_TARGET
        predicted.append(chosen[is_target].cpu())
        expected.append(batch.targets[is_target].cpu())
        if batch.targets.ndim > 1:
            correct_rows.append(((chosen == batch.targets) | ~is_target).all(dim=1).cpu())
    return Predictions(
        predicted=torch.cat(predicted).numpy(),
        expected=torch.cat(expected).numpy(),
        correct_rows=torch.cat(correct_rows).numpy() if correct_rows else None,
    )


def score(found: Predictions, classes: int) -> Evaluation:
    """Accuracy, macro F1 over the classes that occur, and for tagging sentence accuracy."""
    metrics = {
        "macro_f1": float(
            f1_score(
                found.expected,
                found.predicted,
                labels=np.unique(found.expected[found.expected >= 0]),
                average="macro",
                zero_division=0.0,
            )
        )
    }
    if found.correct_rows is not None:
        metrics["sentence_accuracy"] = float(found.correct_rows.mean())
    known = found.expected >= 0
    counts = confusion_matrix(found.expected[known], found.predicted[known], labels=range(classes))
    return Evaluation(float(accuracy_score(found.expected, found.predicted)), counts, metrics)


def tabulate(found: Predictions, classes: Sequence[str]) -> list[ClassScore]:
    """Scores of every class that occurs, the most frequent first."""
    columns = precision_recall_fscore_support(
        found.expected, found.predicted, labels=range(len(classes)), zero_division=0.0
    )
    table = [
        ClassScore(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(classes, *columns, strict=True)
        if support
    ]
    return sorted(table, key=lambda line: (-line.support, line.label))
