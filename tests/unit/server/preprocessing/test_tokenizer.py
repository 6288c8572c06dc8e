"""Texts become the ids that training gives them."""

import unicodedata
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.contract import Contract, Tolerance
from weir.bundle.reader import Bundle
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.bundle.text import tokenise
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.preprocessing.tokenizer import Tokenizer, tokenizer_of
from weir.training.data.tokenizer import Rule, Side, learn_side
from weir.training.data.vocabulary import SPECIAL, Vocabulary

WORDS = [*SPECIAL, "the", "cat", "sat", "café", "."]
LETTERS = [*SPECIAL, *"thecasCT"]
TIME = PaddedAxis(maximum=5, lengths="lengths", padding={"tokens": 0})
SPELLING = PaddedAxis(maximum=4, padding={"characters": 0})


def tokenizer(rule: Any = "words", *, lower: bool = False, time: PaddedAxis = TIME) -> Tokenizer:
    tokenisation = Tokenisation(rule=rule, lower=lower, unknown=1)
    return Tokenizer(tokenisation, {"tokens": WORDS}, time=time)


def spelling_tokenizer() -> Tokenizer:
    """A tokenizer of a model that reads characters too."""
    return Tokenizer(
        Tokenisation(rule="words", lower=True, unknown=1, characters="characters"),
        {"tokens": WORDS, "characters": LETTERS},
        time=replace_padding(TIME, "characters"),
        characters=SPELLING,
    )


def replace_padding(axis: PaddedAxis, name: str) -> PaddedAxis:
    return axis.model_copy(update={"padding": {**axis.padding, name: 0}})


def test_words_are_looked_up_and_unknown_ones_are_marked() -> None:
    reading = tokenizer().tokenize("the dog sat.")

    assert list(reading.tokens) == ["the", "dog", "sat", "."]
    assert list(reading.ids) == [4, 1, 6, 8]
    assert list(reading.is_unknown) == [False, True, False, False]
    assert reading.unknown == ["dog"]


@pytest.mark.parametrize(
    ("rule", "tokens"),
    [
        ("words", ["the", "CAT", ".", "!"]),
        ("spaces", ["the", "CAT.!"]),
        ("letters", [*"the CAT.!"]),
    ],
)
def test_each_rule_splits_its_own_way(rule: str, tokens: list[str]) -> None:
    time = TIME.model_copy(update={"maximum": 20})

    assert list(tokenizer(rule, time=time).tokenize(" the\n CAT.! ").tokens) == tokens


def test_tokens_are_lowered_for_the_vocabulary_alone() -> None:
    reading = spelling_tokenizer().tokenize("The CAT")

    assert list(reading.tokens) == ["The", "CAT"]
    assert list(reading.ids) == [4, 5]
    assert reading.characters == [[11, 5, 6], [10, 1, 11]]


def test_characters_of_a_token_are_bounded() -> None:
    (letters,) = spelling_tokenizer().tokenize("hehehe").characters

    assert letters == [5, 6, 5, 6]


def test_split_tokens_are_only_looked_up() -> None:
    reading = tokenizer().look_up(["the", "cat.", "cafe\u0301", "café"])

    assert list(reading.ids) == [4, 1, 1, 7]
    assert reading.unknown == ["cat.", "cafe\u0301"]


@pytest.mark.parametrize("entry", SPECIAL)
def test_a_text_cannot_spell_a_special_entry(entry: str) -> None:
    reading = tokenizer("spaces").tokenize(entry)

    assert list(reading.ids) == [1] and reading.unknown == [entry]


def test_rows_are_padded() -> None:
    read = spelling_tokenizer()

    rows = read.rows([read.tokenize("the cat"), read.tokenize("sat")])

    assert rows["tokens"].tolist() == [[4, 5], [6, 0]]
    assert rows["lengths"].tolist() == [2, 1]
    assert rows["characters"].tolist() == [[[4, 5, 6], [7, 8, 4]], [[9, 8, 4], [0, 0, 0]]]
    assert {array.dtype for array in rows.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a text with tokens, got none"),
        (" \n\u3000", "expected a text with tokens, got none"),
        ("a b c d e f", "expected at most 5 tokens, got 6"),
        ("a" * 4097, "expected a text of at most 4096 characters, got 4097"),
        ("a" + "\u0301\u0323" * 33, "expected at most 64 consecutive marks, got more"),
    ],
    ids=["empty", "blank", "tokens", "characters", "marks"],
)
def test_invalid_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        tokenizer().tokenize(text)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "expected a text with tokens, got none"),
        (["the", ""], r"tokens\[1\]: expected characters, got none"),
        (["the"] * 6, "expected at most 5 tokens, got 6"),
        (["a" * 4000, "b" * 97], "tokens of at most 4096 characters, got 4097"),
    ],
    ids=["none", "empty", "tokens", "characters"],
)
def test_invalid_tokens_are_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        tokenizer().look_up(tokens)


def test_no_character_outside_the_marks_is_sorted_by_the_normal_form() -> None:
    """Every character that Python's normalisation sorts is refused in long runs."""
    long = [chr(c) * 65 for c in range(0x110000) if unicodedata.combining(chr(c))]

    for text in long:
        with pytest.raises(InvalidRequest, match="consecutive marks"):
            tokenizer().tokenize(text)


TEXTS = ["the cat sat on the mat", "the dog sat on the log", "Lower, LOWEST; lowly\u2581!"] * 5


@cache
def learnt(rule: Rule, *, lower: bool) -> tuple[Side, Tokenizer]:
    """A side of parallel texts as training learns it, and the tokenizer of its bundle."""
    side = learn_side(TEXTS, rule, lower=lower, maximum=60)
    reading = Tokenizer(
        Tokenisation(rule=rule, lower=lower, unknown=1, model="m" if rule == "subwords" else None),
        {"tokens": side.vocabulary.entries},
        time=TIME.model_copy(update={"maximum": 4096}),
        subwords=side.tokenizer.model,
        lowers_texts=True,
    )
    return side, reading


odd = st.lists(st.sampled_from([*"the cat LOW.;'\u2581\u0301\u0323Σς", "İ", "<s>", "漢", "\u3000"]))


@pytest.mark.parametrize("rule", ["letters", "spaces", "words", "subwords"])
@pytest.mark.parametrize("lower", [False, True])
@given(text=st.one_of(st.text(), odd.map("".join)))
def test_sources_of_encoder_decoders_are_tokenized_as_in_training(
    rule: Rule,
    lower: bool,  # noqa: FBT001
    text: str,
) -> None:
    side, reading = learnt(rule, lower=lower)
    tokens = side.tokenizer.split(text)

    if tokens:
        assert list(reading.tokenize(text).tokens) == tokens
        assert list(reading.tokenize(text).ids) == side.encode(text)
    else:
        with pytest.raises(InvalidRequest, match="got none"):
            reading.tokenize(text)


@given(text=st.one_of(st.text(), odd.map("".join)))
def test_texts_of_single_graphs_are_tokenized_as_in_training(text: str) -> None:
    vocabulary = Vocabulary((*SPECIAL, "the", "low", "\u03c3", "\u03c2", "i\u0307"))
    one = Tokenizer(
        Tokenisation(rule="words", lower=True, unknown=1),
        {"tokens": vocabulary.entries},
        time=TIME.model_copy(update={"maximum": 4096}),
    )
    tokens = tokenise(text)

    if tokens:
        assert list(one.tokenize(text).ids) == vocabulary.encode([each.lower() for each in tokens])


CONTRACT = Contract(
    task="tagging",
    architecture="tagger",
    padded_axes={"time": replace_padding(TIME, "characters"), "letters": SPELLING},
    value_ranges={"tokens": ValueRange(maximum=8), "characters": ValueRange(maximum=11)},
    vocabularies={"tokens": "words.txt", "characters": "letters.txt"},
    tokenisation=Tokenisation(rule="words", unknown=1, characters="characters"),
    tolerance=Tolerance(absolute=0, relative=0),
)
BUNDLE = Bundle(CONTRACT, graphs={}, files={}, texts={"words.txt": WORDS, "letters.txt": LETTERS})


def test_tokenizer_of_a_bundle() -> None:
    found = tokenizer_of(BUNDLE)

    assert found is not None
    assert found.tokenize("cat sat").characters == [[7, 8, 4], [9, 8, 4]]
    assert (
        tokenizer_of(replace(BUNDLE, contract=CONTRACT.model_copy(update={"tokenisation": None})))
        is None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_ranges": {"tokens": ValueRange(maximum=7)}}, "each of 9 entries.*from 0 to 7"),
        ({"value_ranges": {}}, "'tokens' to take an id for each of 9 entries.*got no range"),
        (
            {"tokenisation": Tokenisation(rule="words", unknown=9)},
            "an id of 'tokens', below 9, got 9",
        ),
        ({"padded_axes": {"letters": SPELLING}}, r"one padded axis of 'tokens', got \[\]"),
        ({"padded_axes": {"time": TIME}}, r"one padded axis of 'characters', got \[\]"),
    ],
    ids=["small range", "no range", "unknown", "no time", "no letters"],
)
def test_contradictory_bundle_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        tokenizer_of(replace(BUNDLE, contract=CONTRACT.model_copy(update=changes)))


def test_broken_subword_model_is_refused() -> None:
    tokenisation = Tokenisation(rule="subwords", unknown=1, model="m")

    with pytest.raises(ModelLoadError, match="tokenisation: expected a sentencepiece model, got"):
        Tokenizer(tokenisation, {"tokens": WORDS}, time=TIME, subwords=b"noise")
