"""Macro F1 against scikit-learn, and baselines against cases counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score  # type: ignore[import-untyped]

from weir.training.class_scores import macro_f1, most_frequent_class, most_frequent_tags
from weir.training.data.text import TextData, TextRow
from weir.training.optimization import UNSEEN


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 5)), min_size=1, max_size=30))
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, expected = (np.array(each, np.int64) for each in zip(*pairs, strict=True))
    occurring = np.unique(expected[expected >= 0])

    theirs = (
        f1_score(expected, predicted, labels=occurring, average="macro", zero_division=0.0)
        if len(occurring)
        else 0.0
    )

    assert macro_f1(predicted, expected) == pytest.approx(theirs)


def test_the_most_frequent_class_is_that_of_the_training_rows() -> None:
    baseline = most_frequent_class(
        np.array([1, 1, 1, 0, 2]), np.array([0, 0, 1, 2, UNSEEN]), ("cat", "dog", "eel")
    )

    # F1 of dog: 2 x 1 / (5 + 1); the other two classes of the test rows are never answered.
    assert baseline.metrics == pytest.approx(
        {"baseline_accuracy": 1 / 5, "baseline_macro_f1": (2 / 6) / 3}
    )
    assert "'dog'" in baseline.note


def tagged(*sentences: str) -> TextData:
    pairs = [[word.split("/") for word in sentence.split()] for sentence in sentences]
    rows = [TextRow(tuple(w for w, _ in row), tuple(t for _, t in row)) for row in pairs]
    return TextData.of("x", rows, is_tagged=True, checksum="0")


def test_each_word_has_its_most_frequent_tag_and_an_unknown_word_that_of_all() -> None:
    train = tagged("a/D cat/N can/V", "can/V a/D can/N run/V", "a/D cat/N ran/V can/V")
    test = tagged("a/D can/N", "new/V odd/X cat/N")

    baseline = most_frequent_tags(train, test)

    # a D, can V (wrong), new V as most words, odd V (X is unseen), cat N.
    assert baseline.metrics["baseline_accuracy"] == pytest.approx(3 / 5)
    # F1 of D is 1, of N 2 x 1 / (1 + 2), of V 2 x 1 / (3 + 1).
    assert baseline.metrics["baseline_macro_f1"] == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert "'V'" in baseline.note
