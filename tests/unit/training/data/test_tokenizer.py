"""Texts to tokens and back, by each rule."""

import functools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.text import tokenise
from weir.training.data.tokenizer import (
    Rule,
    Side,
    SubwordKind,
    Tokenizer,
    join_subwords,
    learn_side,
    open_subwords,
    split_subwords,
    subword_vocabulary,
    train_subwords,
)
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
def test_each_rule_splits_a_text(rule: Rule, tokens: list[str]) -> None:
    assert Tokenizer(rule).split(" Ab\t c.\u2028") == tokens
    assert Tokenizer(rule).split(" \n") == []


def test_lower_case_is_made_on_request_only() -> None:
    assert Tokenizer("letters", lower=True).split("AÉ") == ["a", "é"]
    assert Tokenizer("letters").split("AÉ") == ["A", "É"]
    assert Tokenizer("spaces").split("e\u0301 b") == ["é", "b"]
    assert Tokenizer("words", lower=True).split("The ÉTÉ") == ["the", "été"]
    assert Tokenizer("words").split("The ÉTÉ") == ["The", "ÉTÉ"]


@pytest.mark.parametrize("rule", ["letters", "spaces", "subwords"])
@pytest.mark.parametrize("lower", [False, True])
@given(text=st.text())
def test_joining_gives_the_normalised_text_back(rule: Rule, lower: bool, text: str) -> None:  # noqa: FBT001
    tokenizer = learnt(rule, lower=lower).tokenizer

    assert tokenizer.join(tokenizer.split(text)) == tokenizer.normalise(text)


prose = st.lists(st.sampled_from([*"ab1.,;:!?%()[]{}'-/$„“«»\u2019\u0301 漢\"", "ab", "é"]))


@given(st.one_of(st.text(), prose.map("".join), prose.map(" ".join)))
def test_joined_words_split_into_the_same_tokens(text: str) -> None:
    tokenizer = Tokenizer("words")
    tokens = tokenizer.split(text)

    assert tokens == tokenise(text)
    assert tokenizer.split(tokenizer.join(tokens)) == tokens


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
    tokenizer = Tokenizer("words")

    assert tokenizer.join(tokenizer.split(text)) == text.replace("--", "- -")


@given(st.text())
def test_normalised_texts_have_no_line_breaks_and_stay_the_same(text: str) -> None:
    normal = Tokenizer("letters").normalise(text)

    assert len(normal.splitlines()) <= 1 and normal == normal.strip()
    assert Tokenizer("letters").normalise(normal) == normal
    assert unicodedata.is_normalized("NFC", normal)


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


def test_options_that_do_not_fit_a_rule_are_refused() -> None:
    with pytest.raises(DataError, match="expected a model for subwords only, got none"):
        Tokenizer("subwords")
    with pytest.raises(DataError, match="expected a model for subwords only, got one for words"):
        Tokenizer("words", model=b"")
    with pytest.raises(DataError, match="subwords: expected a vocabulary size, got none"):
        learn_side(TEXTS, "subwords")
    with pytest.raises(DataError, match="tokenizer: words has no model"):
        Tokenizer("words").pieces()


def test_ids_without_an_entry_are_refused() -> None:
    with pytest.raises(DataError, match="expected ids of 0 to 3, got 4"):
        Side(Tokenizer("spaces"), Vocabulary.build([])).text([4])


SUBWORD_TEXTS = ["lower lowest low", "newer newest new", "wider widest wide <s> <unk>"] * 20
KINDS: tuple[SubwordKind, ...] = ("bpe", "unigram")


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_has_the_ids_of_the_model(kind: SubwordKind) -> None:
    processor = open_subwords(train_subwords(SUBWORD_TEXTS, 40, kind))
    vocabulary = subword_vocabulary(processor)

    assert vocabulary.entries[:4] == SPECIAL and len(vocabulary) <= 40
    assert Vocabulary.parse(vocabulary.lines(), "x") == vocabulary
    for text in ("lower newest", "wide low"):
        assert vocabulary.encode(split_subwords(processor, text)) == processor.encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_bytes(kind: SubwordKind) -> None:
    assert train_subwords(SUBWORD_TEXTS, 40, kind) == train_subwords(iter(SUBWORD_TEXTS), 40, kind)


def test_frequent_words_are_whole_and_rare_ones_are_not() -> None:
    processor = open_subwords(train_subwords(SUBWORD_TEXTS, 60, "bpe"))

    assert split_subwords(processor, "lowest") == ["\u2581lowest"]
    assert len(split_subwords(processor, "lowidest")) > 1


def test_characters_never_seen_are_unknown_and_come_back() -> None:
    side = learn_side(SUBWORD_TEXTS, "subwords", maximum=40)

    assert UNKNOWN in side.encode("low 漢字")
    pieces = side.tokenizer.split("low 漢字")
    assert "漢字" in pieces and join_subwords(pieces) == "low 漢字"


def test_a_text_that_spells_a_special_entry_gets_no_special_id() -> None:
    side = learn_side(SUBWORD_TEXTS, "subwords", maximum=40)

    assert not {0, 2, 3} & set(side.encode("<s> </s> <pad> low"))
    assert side.tokenizer.join(side.tokenizer.split("<s>low</s>")) == "<s>low</s>"


def test_small_sets_give_fewer_entries() -> None:
    side = learn_side(["a b"], "subwords", maximum=1000)

    assert 4 < len(side.vocabulary) < 12


@pytest.mark.parametrize(
    ("texts", "size"), [([], 100), (SUBWORD_TEXTS, 5)], ids=["no text", "too small"]
)
def test_subwords_that_cannot_be_learned_are_an_error(texts: list[str], size: int) -> None:
    with pytest.raises(DataError, match=f"subwords: no bpe of {size} entries from these texts"):
        train_subwords(texts, size, "bpe")


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(DataError, match="subwords: expected a sentencepiece model, got"):
        Tokenizer("subwords", model=b"nothing").split("a")
