"""Ids become text, whole and token by token."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import pairs
from weir.bundle.reader import Bundle
from weir.server.errors import ModelLoadError
from weir.server.preprocessing.detokenizer import Detokenizer, DetokenizerStream, detokenizer_of
from weir.training.data.tokenizer import Rule, Side, learn_side
from weir.training.data.vocabulary import SPECIAL

ENTRIES = [*SPECIAL, "a", "b", "\u2581c", "\u2581"]


@pytest.mark.parametrize(
    ("rule", "additions"),
    [
        ("spaces", ["\u2581c", " a", " b", " \u2581"]),
        ("letters", ["\u2581c", "a", "b", "\u2581"]),
        ("subwords", ["c", "a", "b", ""]),
        (None, ["", "", "", ""]),
    ],
)
def test_each_token_adds_its_part(rule: Any, additions: list[str]) -> None:
    stream = DetokenizerStream(Detokenizer(ENTRIES, rule))

    assert [stream.add(each) for each in (6, 4, 5, 7)] == additions


def test_spaces_between_subwords_wait_for_more_text() -> None:
    stream = DetokenizerStream(Detokenizer(ENTRIES, "subwords"))

    assert [stream.add(each) for each in (7, 7, 4, 7, 7, 5, 7)] == ["", "", "a", "", "", "  b", ""]


@cache
def learnt(rule: Rule) -> Side:
    return learn_side(["the cat sat on the mat", "Lower, lowest"] * 5, rule, maximum=60)


@pytest.mark.parametrize("rule", ["spaces", "letters", "subwords"])
@given(ids=st.lists(st.integers(4, 20)))
def test_the_text_is_that_of_training(rule: Any, ids: list[int]) -> None:
    side = learnt(rule)
    known = [each for each in ids if each < len(side.vocabulary)]
    detokenizer = Detokenizer(side.vocabulary.entries, rule)

    assert detokenizer.text(known) == side.text(known)
    assert [detokenizer.token(each) for each in known] == side.decode(known)


def test_tokens_without_a_vocabulary_are_numbers() -> None:
    detokenizer = Detokenizer((), None)

    assert detokenizer.token(12) == "12" and detokenizer.text([12]) == ""


def test_detokenizer_of_a_bundle() -> None:
    contract = pairs.CONTRACT.model_copy(update={"vocabularies": {"previous": "words.txt"}})

    detokenizer = detokenizer_of(
        Bundle(contract, graphs={}, files={}, texts={"words.txt": ENTRIES})
    )

    assert detokenizer is not None and detokenizer.token(5) == "b"
    with pytest.raises(ModelLoadError, match="previous: expected 8 entries, got 4"):
        detokenizer_of(Bundle(contract, graphs={}, files={}, texts={"words.txt": SPECIAL}))
