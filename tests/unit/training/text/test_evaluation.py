"""Scores against small cases counted by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from weir.training.loop import Batch
from weir.training.optimization import NO_TARGET, UNSEEN
from weir.training.text.evaluation import Predictions, predict, score, score_words, tabulate


class Echo(nn.Module):
    """Predictions with the classes it is given."""

    def forward(self, chosen: Tensor) -> Tensor:
        logits: Tensor = nn.functional.one_hot(chosen, 3).float()
        return logits


def test_padding_is_no_answer_and_an_unseen_class_is_a_miss() -> None:
    targets = torch.tensor([[0, 1, 2], [1, NO_TARGET, NO_TARGET], [0, UNSEEN, NO_TARGET]])
    chosen = torch.tensor([[0, 1, 1], [1, 2, 0], [0, 0, 0]])

    answers = predict(
        Echo(), [Batch((chosen[:2],), targets[:2]), Batch((chosen[2:],), targets[2:])]
    )

    assert answers.expected.tolist() == [0, 1, 2, 1, 0, UNSEEN]
    assert answers.predicted.tolist() == [0, 1, 1, 1, 0, 0]
    assert answers.correct_rows is not None
    assert answers.correct_rows.tolist() == [False, True, False]


def test_a_word_is_right_in_its_main_stress_or_in_every_one() -> None:
    """Tags 0 and 2 are changed in the first word, 1 in the second; the third is right."""
    targets = torch.tensor([[1, 0, 2], [0, 1, NO_TARGET], [2, 1, 0], [1, 0, NO_TARGET]])
    chosen = torch.tensor([[1, 2, 0], [1, 0, 2], [2, 1, 0], [1, 0, 1]])

    answers = predict(
        Echo(), [Batch((chosen[:1],), targets[:1]), Batch((chosen[1:],), targets[1:])]
    )

    assert score_words(answers, 1) == {"main_stress_right": 0.75, "every_stress_right": 0.5}


def test_classified_rows_have_no_sentence_accuracy() -> None:
    answers = predict(Echo(), [Batch((torch.tensor([0, 2]),), torch.tensor([0, 1]))])

    assert answers.correct_rows is None
    assert "sentence_accuracy" not in score(answers, 3).metrics
    assert score_words(answers, 1) == {}


@pytest.fixture
def counted() -> Predictions:
    """Class 0: recall 2 of 3, precision 2 of 3; 1: 1 of 2, 1 of 2; 3: 0 of 1; one unseen."""
    return Predictions(
        predicted=np.array([0, 0, 1, 1, 2, 2, 0]),
        expected=np.array([0, 0, 0, 1, 1, 3, UNSEEN]),
        correct_rows=np.array([True, False, False, False]),
    )


def test_scores_are_those_counted_by_hand(counted: Predictions) -> None:
    tested = score(counted, 4)

    # F1: 2 x 2 / (3 + 3), 2 x 1 / (2 + 2), 0; class 2 never occurs and does not count.
    assert tested.accuracy == pytest.approx(3 / 7)
    assert tested.metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert tested.metrics["sentence_accuracy"] == pytest.approx(0.25)
    expected = [[2, 1, 0, 0], [0, 1, 1, 0], [0] * 4, [0, 0, 1, 0]]
    assert tested.confusions is not None and tested.confusions.tolist() == expected


def test_table_has_the_classes_that_occur_the_most_frequent_first(counted: Predictions) -> None:
    table = tabulate(counted, ("noun", "verb", "never", "adverb"))

    assert [(line.label, line.support) for line in table] == [
        ("noun", 3),
        ("verb", 2),
        ("adverb", 1),
    ]
    assert table[0].precision == table[0].recall == pytest.approx(2 / 3)
    assert table[1].precision == table[1].recall == pytest.approx(1 / 2)
    assert (table[2].precision, table[2].recall, table[2].f1) == (0.0, 0.0, 0.0)
