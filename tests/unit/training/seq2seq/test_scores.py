"""Scores, against numbers worked out by hand, slow obvious code, and sacrebleu itself."""

import functools

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from weir.training.errors import DataError
from weir.training.seq2seq.scores import (
    bleu,
    edit_distance,
    exact_accuracy,
    token_error_rate,
    word_error_rate,
)

OUTPUTS = [["K", "AE", "T"], ["D", "AA"], ["R", "EH", "D"]]
REFERENCES = [[["K", "AE", "T"]], [["D", "AO", "G"], ["D", "AA", "G"]], [["R", "IY", "D"]]]


def slow_distance(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """The definition, by recursion."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(left), len(right))


@pytest.mark.parametrize(
    ("left", "right", "edits"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_distances_worked_out_by_hand(left: str, right: str, edits: int) -> None:
    assert edit_distance(left, right) == edit_distance(right, left) == edits


words = st.lists(st.sampled_from("abc"), max_size=7)


@given(words, words)
def test_distance_is_the_definition(left: list[str], right: list[str]) -> None:
    assert edit_distance(left, right) == slow_distance(tuple(left), tuple(right))


def test_a_word_is_right_that_is_any_of_its_references() -> None:
    assert exact_accuracy(OUTPUTS, REFERENCES) == pytest.approx(1 / 3)
    assert word_error_rate(OUTPUTS, REFERENCES) == pytest.approx(2 / 3)
    assert exact_accuracy([["D", "AO", "G"]], [REFERENCES[1]]) == 1.0
    assert exact_accuracy(["a b"], [["a", "a b"]]) == 1.0
    assert exact_accuracy([("a",)], [[["a"]]]) == 1.0


def test_tokens_are_compared_with_the_nearest_reference() -> None:
    # cat: 0 of 3; dog: 1 of 3, of the second reference; red: 1 of 3.
    assert token_error_rate(OUTPUTS, REFERENCES) == pytest.approx(2 / 9)
    # Both are 1 away; the first one's length counts.
    assert token_error_rate([["a", "b"]], [[["a"], ["a", "b", "c"]]]) == 1.0
    assert token_error_rate([["a", "b", "c"]], [[["a"]]]) == 2.0


def test_bleu_of_a_sentence_worked_out_by_hand() -> None:
    # 1- to 4-grams: 5 of 6, 3 of 5, 2 of 4, 1 of 3; the lengths are equal.
    found = bleu(["the cat sat on a mat"], [["The cat sat on the mat"]], lower=True)

    assert found.score == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert found.signature.startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:")


def test_bleu_is_that_of_sacrebleu() -> None:
    outputs = ["A man in a hat.", "Two dogs are running, fast!", "a b c d"]
    references = [["A man in an orange hat."], ["Two dogs run fast!"], ["A b c d e"]]
    stream = [accepted[0] for accepted in references]

    for lower in (False, True):
        expected = sacrebleu.corpus_bleu(outputs, [stream], lowercase=lower).score
        assert bleu(outputs, references, lower=lower).score == expected
    assert "case:mixed" in bleu(outputs, references, lower=False).signature


def test_rows_may_have_different_numbers_of_references() -> None:
    outputs = ["the cat sat on a mat", "a dog ran in the park"]
    references = [["the cat sat on a mat", "a cat sat"], ["a dog ran in the park"]]

    found = bleu(outputs, references, lower=True)

    assert found.score == pytest.approx(100.0) and "nrefs:var" in found.signature


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="expected rows with references, found 0 and 0"):
        word_error_rate([], [])
    with pytest.raises(DataError, match="expected rows with references, found 1 and 2"):
        bleu(["a"], [["a"], ["b"]], lower=True)
    with pytest.raises(DataError, match="row 0: expected references, found none"):
        token_error_rate([["a"]], [[]])
    with pytest.raises(DataError, match="expected references with tokens, found none"):
        token_error_rate([["a"]], [[[]]])
