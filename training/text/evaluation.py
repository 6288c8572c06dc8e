"""Evaluation of sequence classifiers and taggers: scores by scikit-learn, and the class table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.training.class_scores import macro_f1
from weir.training.figures import save
from weir.training.loop import Batch
from weir.training.optimization import NO_TARGET
from weir.training.run_directory import Evaluation

CLASS_TABLE = "classes.png"
MOST_CLASSES = 60
"""More rows would not be readable; the rarest are left out, and the title says so."""

_HEADINGS = ("class", "precision", "recall", "F1", "support")

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted and true classes, (targets,) each; a class unseen in training is -1.

    correct_rows: (rows,) bool, whether all tags of a row are correct; None for classification.
    rows: (targets,) the row of each tag; None for classification.
    """

    predicted: Numbers
    expected: Numbers
    correct_rows: NDArray[np.bool_] | None
    rows: Numbers | None = None


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
    rows: list[Tensor] = []
    for batch in batches:
        chosen = network(*batch.inputs).argmax(dim=-1)
        is_target = batch.targets != NO_TARGET
        predicted.append(chosen[is_target].cpu())
        expected.append(batch.targets[is_target].cpu())
        if batch.targets.ndim > 1:
            rows.append(is_target.nonzero()[:, 0].cpu() + sum(map(len, correct_rows)))
            correct_rows.append(((chosen == batch.targets) | ~is_target).all(dim=1).cpu())
    return Predictions(
        predicted=torch.cat(predicted).numpy(),
        expected=torch.cat(expected).numpy(),
        correct_rows=torch.cat(correct_rows).numpy() if correct_rows else None,
        rows=torch.cat(rows).numpy() if rows else None,
    )


def score(found: Predictions, classes: int) -> Evaluation:
    """Accuracy, macro F1 over the classes that occur, and for tagging sentence accuracy."""
    from sklearn.metrics import accuracy_score, confusion_matrix  # type: ignore[import-untyped]

    metrics = {"macro_f1": macro_f1(found.predicted, found.expected)}
    if found.correct_rows is not None:
        metrics["sentence_accuracy"] = float(found.correct_rows.mean())
    known = found.expected >= 0
    counts = confusion_matrix(found.expected[known], found.predicted[known], labels=range(classes))
    return Evaluation(float(accuracy_score(found.expected, found.predicted)), counts, metrics)


def score_words(found: Predictions, main: int) -> dict[str, float]:
    """The shares of words with the right main stress, and with every stress right.

    Args:
        main: the class of the main stress. A word has it right if it is predicted for the phonemes
            that have it, and for no other.
    """
    if found.rows is None or found.correct_rows is None:
        return {}
    is_wrong = (found.predicted == main) != (found.expected == main)
    wrong_words = len(np.unique(found.rows[is_wrong]))
    return {
        "main_stress_right": 1.0 - wrong_words / len(found.correct_rows),
        "every_stress_right": float(found.correct_rows.mean()),
    }


def tabulate(found: Predictions, classes: Sequence[str]) -> list[ClassScore]:
    """Scores of every class that occurs, the most frequent first."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        found.expected, found.predicted, labels=range(len(classes)), zero_division=0.0
    )
    table = [
        ClassScore(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(classes, *columns, strict=True)
        if support
    ]
    return sorted(table, key=lambda line: (-line.support, line.label))


def draw_class_table(table: Sequence[ClassScore], title: str, path: Path) -> None:
    """Draw precision, recall, F1 and support per class, most frequent first; bars show F1."""
    shown = table[:MOST_CLASSES]
    figure = Figure(figsize=(6.4, 1.0 + 0.26 * (len(shown) + 1)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(len(shown) + 0.5, -1.0)
    columns = (0.02, 0.5, 0.65, 0.8, 0.97)
    for column, heading in zip(columns, _HEADINGS, strict=True):
        axes.text(column, -0.5, heading, weight="bold", ha="left" if column < 0.1 else "right")
    for row, line in enumerate(shown):
        axes.barh(row + 0.3, 0.96 * line.f1, left=0.01, height=0.85, color="#cfe3f5")
        cells = (
            f"{line.precision:.3f}",
            f"{line.recall:.3f}",
            f"{line.f1:.3f}",
            f"{line.support:,}",
        )
        axes.text(columns[0], row + 0.5, line.label, parse_math=False)
        for column, cell in zip(columns[1:], cells, strict=True):
            axes.text(column, row + 0.5, cell, ha="right")
    rest = (
        f", the {len(shown)} most frequent of {len(table)} classes"
        if len(shown) < len(table)
        else ""
    )
    axes.set_title(f"{title}{rest}; bars show F1", fontsize="medium", parse_math=False)
    save(figure, path)
