"""A tokenizer.json does what the library does with it; what the library cannot read is an error."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.helpers import bert
from weir.bundle.errors import BrokenBundle
from weir.bundle.sequences import PaddedAxis, Tokenisation
from weir.bundle.tokenizer_json import TokenizerJson, UnreadableText, rows

ORACLE = bert.trained_tokenizer()
FILE: dict[str, Any] = json.loads(ORACLE.to_str())
TIME = PaddedAxis(maximum=8, mask="mask", padding={"input_ids": 9, "mask": 0, "token_type_ids": 0})
TOKENISATION = Tokenisation(
    rule="tokenizer-json",
    tokens="input_ids",
    token_type_ids="token_type_ids",  # noqa: S106 - no password
    model="tokenizer.json",
)
REGEX = {"type": "Split", "behavior": "Isolated", "invert": False}


def file(**changes: Any) -> bytes:
    return json.dumps({**FILE, **changes}).encode()


def truncation(length: int, stride: int = 0) -> dict[str, Any]:
    return {
        "max_length": length, "stride": stride, "strategy": "LongestFirst", "direction": "Right"
    }  # fmt: skip


@pytest.mark.parametrize("text", [*bert.TEXTS, "名 [SEP] \U0001f600", " ", "a" * 500])
def test_ids_are_those_of_the_library(text: str) -> None:
    opened = TokenizerJson(file())

    assert opened.encode(text).ids == ORACLE.encode(text).ids


def test_words_that_are_split_already_are_not_split_at_spaces_again() -> None:
    words = ["What is", "the"]

    encoding = TokenizerJson(file()).encode(words)

    assert encoding.ids == ORACLE.encode(words, is_pretokenized=True).ids


def test_padding_of_the_file_is_not_used() -> None:
    padding = {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 4,
        "pad_type_id": 0,
        "pad_token": "[MASK]",
    }

    opened = TokenizerJson(file(padding=padding))

    assert opened.encode("who").ids == ORACLE.encode("who").ids
    assert opened.padding == 4


@pytest.mark.parametrize("stride", [0, 5])
def test_truncation_of_the_file_keeps_to_the_maximum(stride: int) -> None:
    opened = TokenizerJson(file(truncation=truncation(7, stride)), maximum=5)

    ids = opened.encode(bert.TEXTS[1]).ids

    assert ids == [*ORACLE.encode(bert.TEXTS[1]).ids[:4], 3]
    assert opened.truncation == 5


def test_text_is_not_cut_without_a_truncation() -> None:
    opened = TokenizerJson(file(), maximum=5)

    assert len(opened.encode(bert.TEXTS[1]).ids) > 5 and opened.truncation is None


def test_what_the_file_tells_of_its_vocabulary() -> None:
    opened = TokenizerJson(file())

    assert (opened.unknown, opened.padding) == (1, 0)
    assert opened.greatest == ORACLE.get_vocab_size() - 1


@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        (models.Unigram([("a", -1.0), ("<unk>", -2.0)], unk_id=1), 1),
        (models.Unigram([("a", -1.0), ("<unk>", -2.0)]), None),
        (models.WordLevel({"a": 0, "?": 1}, unk_token="?"), 1),  # noqa: S106 - no password
        (models.BPE({"a": 0, "b": 1}, []), None),
    ],
    ids=["unigram", "unigram without", "word level", "byte pairs"],
)
def test_unknown_token_of_each_model(model: Any, unknown: int | None) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()

    assert TokenizerJson(tokenizer.to_str().encode()).unknown == unknown


def test_byte_level_tokens_need_no_unknown_one() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "Ġ": 1}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    assert TokenizerJson(tokenizer.to_str().encode()).encode("a a").ids == [0, 1, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "EOF"),
        (b"\xff\xfe", "expected value"),
        (b"{}", "Model missing"),
        (b"[" * 100_000, "recursion|expected|invalid"),
        (file()[:-20], "EOF"),
        (file(model={"type": "Nope"}), "did not match"),
        (
            file(pre_tokenizer={**REGEX, "pattern": {"Regex": "("}}),
            "Oniguruma error",
        ),
        (file(truncation=truncation(2)), "truncation: expected more than its 2 special .* got 2"),
        (
            file(model={**FILE["model"], "max_input_chars_per_word": 2**63}),
            "max_input_chars_per_word: expected at most 1000, got 9223372036854775808",
        ),
        (file(truncation=truncation(0)), "truncation: expected more than its 2 special .* got 0"),
    ],
    ids=[
        "empty",
        "noise",
        "no keys",
        "deep",
        "cut",
        "model",
        "regex",
        "special",
        "long words",
        "zero",
    ],
)
def test_broken_file_is_named(data: bytes, message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        TokenizerJson(data)


def test_panic_of_the_library_is_an_error_of_the_text() -> None:
    slow = file(normalizer=None, pre_tokenizer={**REGEX, "pattern": {"Regex": "^(a+)+$"}})
    opened = TokenizerJson(slow)

    with pytest.raises(UnreadableText, match="retry-limit-in-match over"):
        opened.encode("a" * 30 + "b")

    assert len(opened.encode("who").ids) == 3


def test_special_token_without_an_id_is_an_error_of_each_text() -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {},
    }

    with pytest.raises(UnreadableText, match="no entry found"):
        TokenizerJson(file(post_processor=template)).encode("a")


def test_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)

    with pytest.raises(BrokenBundle, match="needs tokenizers: pip install tokenizers"):
        TokenizerJson(file())


def test_library_starts_no_threads_of_its_own() -> None:
    TokenizerJson(file())

    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


@dataclass
class Text:
    ids: Sequence[int]
    type_ids: Sequence[int]


def test_rows_are_padded_to_the_longest_and_masked() -> None:
    texts = [Text([2, 5, 3], [0, 1, 1]), Text([2, 3], [0, 0])]

    inputs = rows(texts, TOKENISATION, TIME)

    assert {name: array.tolist() for name, array in inputs.items()} == {
        "input_ids": [[2, 5, 3], [2, 3, 9]],
        "mask": [[1, 1, 1], [1, 1, 0]],
        "token_type_ids": [[0, 1, 1], [0, 0, 0]],
    }


def test_model_without_a_mask_gets_lengths_or_the_padding_alone() -> None:
    texts = [Text([2, 5, 3], []), Text([2, 3], [])]
    ids = TOKENISATION.model_copy(update={"token_type_ids": None})
    padded = PaddedAxis(maximum=8, padding={"input_ids": 0})
    counted = padded.model_copy(update={"lengths": "lengths"})

    assert list(rows(texts, ids, padded)) == ["input_ids"]
    assert rows(texts, ids, counted)["lengths"].tolist() == [3, 2]
