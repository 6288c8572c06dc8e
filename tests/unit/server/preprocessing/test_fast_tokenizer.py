"""Texts become the rows that a tokenizer.json makes of them, or are refused."""

import json
from typing import Any

import pytest

from tests.helpers import bert
from weir.bundle.contract import Contract, Tolerance
from weir.bundle.reader import Bundle
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.preprocessing.fast_tokenizer import FastTokenizer
from weir.server.preprocessing.tokenizer import tokenizer_of

ORACLE = bert.trained_tokenizer()
FILE: dict[str, Any] = json.loads(ORACLE.to_str())
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TIME = PaddedAxis(maximum=12, mask="attention_mask", padding=dict.fromkeys(INPUTS, 0))
TOKENISATION = Tokenisation(
    rule="tokenizer-json",
    tokens="input_ids",
    token_type_ids="token_type_ids",  # noqa: S106 - no password
    model="tokenizer.json",
)
ENTRIES = ORACLE.get_vocab_size()
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {},
}


def tokenizer(entries: int = ENTRIES, **changes: Any) -> FastTokenizer:
    file = json.dumps({**FILE, **changes}).encode()
    return FastTokenizer(TOKENISATION, file, time=TIME, bounds=ValueRange(maximum=entries - 1))


def test_bundle_with_a_tokenizer_json_has_a_fast_tokenizer() -> None:
    contract = Contract(
        task="sequence-classification",
        architecture="bert",
        padded_axes={"time": TIME},
        value_ranges={"input_ids": ValueRange(maximum=ENTRIES - 1)},
        tokenisation=TOKENISATION,
        tolerance=Tolerance(absolute=0, relative=0),
    )
    bundle = Bundle(contract, {}, {"tokenizer.json": ORACLE.to_str().encode()}, {})

    found = tokenizer_of(bundle)

    assert found is not None
    assert found.tokenize("who wrote it").ids == ORACLE.encode("who wrote it").ids


def test_unknown_tokens_are_named_as_the_text_spells_them() -> None:
    text = tokenizer().tokenize("Who wrote 名, Zzz名 ?")

    assert text.ids == ORACLE.encode("Who wrote 名, Zzz名 ?").ids
    assert text.unknown[0] == "名"
    assert len(text.unknown) == list(text.ids).count(1)


def test_split_words_are_tokenized_each_by_itself() -> None:
    text = tokenizer().look_up(["Who wrote", "名"])

    assert text.ids == ORACLE.encode(["Who wrote", "名"], is_pretokenized=True).ids
    assert text.unknown == ["名"]


def test_rows_have_all_inputs_of_the_model() -> None:
    fast = tokenizer()

    inputs = fast.rows([fast.tokenize("who"), fast.tokenize("who wrote it")])

    assert tuple(inputs) == INPUTS
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert inputs["input_ids"][0].tolist() == [*ORACLE.encode("who").ids, 0, 0]


@pytest.mark.parametrize("text", ["", "  ", "\u200b"], ids=["empty", "spaces", "invisible"])
def test_text_without_tokens_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a text with tokens, got none"):
        tokenizer().tokenize(text)


def test_longer_text_is_refused_unless_the_file_cuts_it() -> None:
    text = bert.TEXTS[1]
    count = len(ORACLE.encode(text).ids)
    cut = {"max_length": 99, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}

    with pytest.raises(InvalidRequest, match=f"expected at most 12 tokens, got {count}"):
        tokenizer().tokenize(text)
    assert len(tokenizer(truncation=cut).tokenize(text).ids) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [("who " * 2000, "at most 4096 characters, got 8000"), ("e" + "\u0301" * 99, "marks")],
    ids=["characters", "marks"],
)
def test_expensive_text_is_refused_before_it_is_tokenized(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        tokenizer().tokenize(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "tokens, got none"),
        (["who", ""], r"tokens\[1\]"),
        (["who"] * 13, "at most 12 tokens, got 13"),
        (["w" * 5000], "at most 4096 characters"),
        (["who"] * 11, "at most 12 tokens, got 13"),
    ],
    ids=["none", "empty", "too many", "too long", "too many with special ones"],
)
def test_split_words_have_the_same_limits(words: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        tokenizer().look_up(words)


def test_ids_beyond_the_value_range_are_refused_at_load() -> None:
    with pytest.raises(ModelLoadError, match=f"'input_ids' to take the ids 0 to {ENTRIES - 1}"):
        tokenizer(entries=ENTRIES - 1)
    with pytest.raises(ModelLoadError, match="got no range"):
        FastTokenizer(TOKENISATION, ORACLE.to_str().encode(), time=TIME, bounds=None)


def test_broken_file_is_refused_at_load() -> None:
    with pytest.raises(ModelLoadError, match=r"tokenisation: expected a tokenizer.json, got"):
        FastTokenizer(TOKENISATION, b"{}", time=TIME, bounds=ValueRange(maximum=1))


def test_file_that_can_encode_nothing_is_refused_at_load_with_the_reason() -> None:
    with pytest.raises(ModelLoadError, match=r"tokenizer.json: no entry found for key"):
        tokenizer(post_processor=TEMPLATE).example()


def test_panic_of_the_library_is_the_clients_error_without_its_message() -> None:
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    fast = tokenizer(normalizer=None, pre_tokenizer={**split, "pattern": {"Regex": "^(a+)+$"}})

    with pytest.raises(InvalidRequest, match=r"^the tokenizer cannot read this text$"):
        fast.tokenize("a" * 30 + "b")


def test_vocabulary_without_a_letter_still_has_an_example() -> None:
    model = {"type": "BPE", "vocab": {"名": 1}, "merges": []}
    fast = tokenizer(model=model, pre_tokenizer=None, post_processor=None, added_tokens=[])

    assert list(fast.example().ids) == [1]
