"""Texts to tokens and back, by each rule."""

import functools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.training.data.segment import Rule, Segmenter, Side, learn_side
from weir.training.data.tokenise import tokenise
from weir.training.data.vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, Vocabulary
from weir.training.errors import DataError

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "Lower, LOWEST; lowly\u2581!"] * 5
RULES: tuple[Rule, ...] = ("letters", "spaces", "words", "subwords")


@functools.cache
def learnt(rule: Rule, *, lower: bool = False) -> Side:
    return learn_side(TEXTS, rule, lower=lower, maximum=60)


@pytest.mark.parametrize(
    ("rule", "tokens"),
    [
        ("letters", ["A", "b", " ", "c", "."]),
        ("spaces", ["Ab", "c."]),
        ("words", ["Ab", "c", "."]),
    ],
)
def test_each_rule_cuts_its_way(rule: Rule, tokens: list[str]) -> None:
    assert Segmenter(rule).split(" Ab\t c.\u2028") == tokens
    assert Segmenter(rule).split(" \n") == []


def test_lower_case_is_made_on_request_only() -> None:
    assert Segmenter("letters", lower=True).split("AÉ") == ["a", "é"]
    assert Segmenter("letters").split("AÉ") == ["A", "É"]
    assert Segmenter("spaces").split("e\u0301 b") == ["é", "b"]


@pytest.mark.parametrize("rule", ["letters", "spaces", "subwords"])
@pytest.mark.parametrize("lower", [False, True])
@given(text=st.text())
def test_joining_gives_the_even_text_back(rule: Rule, lower: bool, text: str) -> None:  # noqa: FBT001
    segmenter = learnt(rule, lower=lower).segmenter

    assert segmenter.join(segmenter.split(text)) == segmenter.even(text)


prose = st.lists(st.sampled_from([*"ab1.,;:!?%()[]{}'-/$„“«»\u2019\u0301 漢\"", "ab", "é"]))


@given(st.one_of(st.text(), prose.map("".join), prose.map(" ".join)))
def test_words_that_are_joined_are_cut_the_same_again(text: str) -> None:
    segmenter = Segmenter("words")
    tokens = segmenter.split(text)

    assert tokens == tokenise(text, lower=False)
    assert segmenter.split(segmenter.join(tokens)) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "A man, a plan; a canal: Panama!",
        "Don't stop (or do) -- it's a T-shirt/jacket.",
        "A discount of 50% off: only $5.",
        "Ein „großer“ Hund [braun] läuft...",
    ],
)
def test_prose_is_joined_as_it_is_written(text: str) -> None:
    segmenter = Segmenter("words")

    assert segmenter.join(segmenter.split(text)) == text.replace("--", "- -")


@given(st.text())
def test_even_texts_have_no_line_breaks_and_stay_even(text: str) -> None:
    even = Segmenter("letters").even(text)

    assert len(even.splitlines()) <= 1 and even == even.strip()
    assert Segmenter("letters").even(even) == even
    assert unicodedata.is_normalized("NFC", even)


@pytest.mark.parametrize("rule", RULES)
def test_known_texts_come_back_from_their_ids(rule: Rule) -> None:
    side = learnt(rule, lower=True)

    for text in TEXTS[:2]:
        ids = side.encode(text)
        assert all(each >= len(SPECIAL) for each in ids)
        assert side.text([BEGIN, *ids, END, PAD, ids[0]]) == text


@pytest.mark.parametrize("rule", RULES)
def test_learning_twice_gives_the_same(rule: Rule) -> None:
    assert learn_side(TEXTS, rule, maximum=60) == learnt(rule)


def test_counts_and_sizes_bound_a_vocabulary() -> None:
    assert learn_side(["a a b"], "spaces", minimum_count=2).vocabulary.entries[4:] == ("a",)
    assert learn_side(["a a b"], "spaces", maximum=5).encode("a b") == [4, UNKNOWN]


def test_what_does_not_go_with_a_rule_is_refused() -> None:
    with pytest.raises(DataError, match="expected a model for subwords only, found none"):
        Segmenter("subwords")
    with pytest.raises(DataError, match="expected a model for subwords only, found one for words"):
        Segmenter("words", model=b"")
    with pytest.raises(DataError, match="subwords: expected a vocabulary size, got none"):
        learn_side(TEXTS, "subwords")
    with pytest.raises(DataError, match="segmenter: words has no model"):
        Segmenter("words").pieces()


def test_ids_that_nobody_has_are_refused() -> None:
    with pytest.raises(DataError, match="expected ids of 0 to 3, got 4"):
        Side(Segmenter("spaces"), Vocabulary.build([])).text([4])
