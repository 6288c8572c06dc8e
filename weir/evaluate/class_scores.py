"""Scores of classes on the rows that were sent: accuracy, macro F1 and a baseline."""

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weir.training.class_scores import macro_f1
from weir.training.optimization import UNSEEN

# A class that is at least twice as frequent as another one makes the accuracy its own.
UNEQUAL = 2.0


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of answers.

    Attributes:
        targets, right: number of targets, and of right answers.
        macro_f1: mean F1 of the classes that occur and that the model has.
        has_unseen: whether targets have labels that the model lacks.
        most_frequent: the class of most targets.
        most_frequent_count: its number of targets.
        is_unequal: whether a class has at least twice as many targets as another.
    """

    targets: int
    right: int
    macro_f1: float
    has_unseen: bool
    most_frequent: str
    most_frequent_count: int
    is_unequal: bool

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.targets

    @property
    def baseline(self) -> float:
        """Accuracy of the answer that is right most often, given to every target."""
        return self.most_frequent_count / self.targets


def score(expected: Sequence[str], predicted: Sequence[str], known: Sequence[str]) -> ClassScores:
    """Score answers by their labels; `known` are the model's, empty if it does not say them."""
    occurring = Counter(expected)
    (most_frequent, count), *_ = occurring.most_common(1)
    numbers = {label: number for number, label in enumerate(known or sorted(occurring))}
    # An answer that is no known label is wrong, and is a class of its own.
    answers = [numbers.setdefault(label, len(numbers)) for label in predicted]
    targets = np.array([numbers.get(label, UNSEEN) for label in expected], np.int64)
    return ClassScores(
        targets=len(expected),
        right=sum(map(operator.eq, expected, predicted)),
        macro_f1=macro_f1(np.array(answers, np.int64), targets),
        has_unseen=bool((targets == UNSEEN).any()),
        most_frequent=most_frequent,
        most_frequent_count=count,
        is_unequal=count >= UNEQUAL * min(occurring.values()),
    )
