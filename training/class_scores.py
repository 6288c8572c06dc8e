"""Scores of classes: macro F1, and the baselines that every accuracy is printed beside.

A baseline needs no network and is learned from the training rows:

    most frequent class    every row gets the class that most training rows have
    most frequent tag      every word gets the tag that it has most often in the training rows; a
                           word that they lack gets the most frequent tag of all
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weir.training.data.text import TextData
from weir.training.optimization import UNSEEN
from weir.training.run_directory import Evaluation

BASELINE = "baseline_"
"""Prefix of a baseline's measures in `RunRecord.test_metrics`."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The scores of a baseline on the test rows, by names of `BASELINE`, and what it answers."""

    metrics: dict[str, float]
    note: str

    def beside(self, evaluation: Evaluation) -> Evaluation:
        """The network's evaluation with the baseline's scores and note added."""
        return replace(
            evaluation,
            metrics=evaluation.metrics | self.metrics,
            notes=evaluation.notes | {"baseline": self.note},
        )


def macro_f1(predicted: Numbers, expected: Numbers) -> float:
    """The mean F1 of the classes that occur in `expected`, 0 if there are none.

    Args:
        predicted, expected: (targets,); a class that the training rows lack is `UNSEEN`, and
            every answer to it is wrong.
    """
    known = expected[expected >= 0]
    size = 1 + max(int(known.max(initial=0)), int(predicted.max(initial=0)))
    right = np.bincount(predicted[predicted == expected], minlength=size)
    answered = np.bincount(predicted, minlength=size)
    occurring = np.bincount(known, minlength=size)
    occurs = occurring > 0
    if not occurs.any():
        return 0.0
    return float((2.0 * right[occurs] / (answered + occurring)[occurs]).mean())


def most_frequent(targets: Numbers) -> int:
    """The class of most training rows (rows,); of equally frequent ones the first."""
    return int(np.bincount(targets).argmax())


def most_frequent_class(train: Numbers, expected: Numbers, classes: Sequence[str]) -> Baseline:
    """Score the most frequent class of the training targets on test targets, (targets,) each."""
    answer = most_frequent(train)
    note = f"every row gets {classes[answer]!r}, the most frequent class of the training rows"
    return _score(np.full_like(expected, answer), expected, note)


def most_frequent_tags(train: TextData, test: TextData) -> Baseline:
    """Score each word's most frequent tag in the training rows on the words of the test rows."""
    by_word: dict[str, Counter[str]] = {}
    overall: Counter[str] = Counter()
    for tokens, tags in zip(train.rows, train.labels, strict=True):
        for token, tag in zip(tokens, tags, strict=True):
            by_word.setdefault(token, Counter())[tag] += 1
        overall.update(tags)
    numbers = {tag: number for number, tag in enumerate(train.classes)}
    frequent = {word: numbers[counts.most_common(1)[0][0]] for word, counts in by_word.items()}
    other = overall.most_common(1)[0][0]
    predicted = [frequent.get(token, numbers[other]) for tokens in test.rows for token in tokens]
    expected = [numbers.get(tag, UNSEEN) for tags in test.labels for tag in tags]
    note = (
        "every word gets its most frequent tag of the training rows, a word that they lack "
        f"{other!r}"
    )
    return _score(np.array(predicted, np.int64), np.array(expected, np.int64), note)


def _score(predicted: Numbers, expected: Numbers, note: str) -> Baseline:
    metrics = {
        f"{BASELINE}accuracy": float((predicted == expected).mean()),
        f"{BASELINE}macro_f1": macro_f1(predicted, expected),
    }
    return Baseline(metrics, note)
