"""Scores of answers, against scikit-learn."""

import pytest
from sklearn.metrics import f1_score  # type: ignore[import-untyped]

from weir.evaluate.class_scores import score

EXPECTED = ["a", "a", "a", "b", "b", "c"]
PREDICTED = ["a", "a", "b", "b", "a", "a"]


def test_scores_are_those_of_scikit_learn() -> None:
    found = score(EXPECTED, PREDICTED, ["a", "b", "c", "d"])

    macro = f1_score(EXPECTED, PREDICTED, average="macro", zero_division=0.0)
    assert (found.accuracy, found.macro_f1) == pytest.approx((0.5, macro))
    assert (found.most_frequent, found.baseline, found.is_unequal) == ("a", 0.5, True)
    assert not found.has_unseen


def test_a_label_that_the_model_lacks_is_wrong_and_no_class_of_the_mean() -> None:
    found = score(["a", "b", "new"], ["a", "b", "a"], ["a", "b"])

    assert found.accuracy == pytest.approx(2 / 3)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2) and found.has_unseen


def test_classes_of_equal_size_are_told_from_unequal_ones() -> None:
    assert not score(["a", "b", "b"] * 2 + ["a"], ["a"] * 7, []).is_unequal
    assert score(["a", "b", "b"], ["a"] * 3, []).is_unequal
