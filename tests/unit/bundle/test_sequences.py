import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weir.bundle.contract import Contract, parse
from weir.bundle.errors import BrokenBundle
from weir.bundle.reader import read
from weir.bundle.sequences import Tokenisation

TIME = {"maximum": 64, "lengths": "lengths", "padding": {"tokens": 0, "characters": 0}}
LETTERS = {"maximum": 16, "padding": {"characters": 0}}
TAGGER: dict[str, Any] = {
    "format": 1,
    "task": "tagging",
    "architecture": "bilstm",
    "tolerance": {"absolute": 1e-5, "relative": 1e-5},
    "padded_axes": {"time": TIME, "letters": LETTERS},
    "value_ranges": {"tokens": {"maximum": 99}, "characters": {"minimum": 0, "maximum": 30}},
    "vocabularies": {
        "tokens": "vocabulary.tokens.txt",
        "characters": "vocabulary.characters.txt",
    },
    "tokenisation": {"rule": "words", "lower": True, "unknown": 1, "characters": "characters"},
}


def parsed(**changes: object) -> Contract:
    return parse(json.dumps({**TAGGER, **changes}).encode())


def axes(**changes: object) -> dict[str, Any]:
    return {"padded_axes": {"time": {**TIME, **changes}, "letters": LETTERS}}


def test_what_is_written_is_read_back() -> None:
    contract = parsed()

    assert contract.padded_axes["time"].lengths == "lengths"
    assert contract.padded_axes["letters"].lengths is None
    assert contract.value_ranges["tokens"].minimum == 0
    assert contract.tokenisation is not None
    assert (contract.tokenisation.tokens, contract.tokenisation.unknown) == ("tokens", 1)
    assert parse(contract.model_dump_json().encode()) == contract


def test_older_bundles_have_none_of_it() -> None:
    kept = {key: TAGGER[key] for key in ("format", "task", "architecture", "tolerance")}

    contract = parse(json.dumps(kept).encode())

    assert contract.padded_axes == {} and contract.value_ranges == {}
    assert contract.vocabularies == {} and contract.tokenisation is None


@pytest.mark.parametrize("task", ["sequence-classification", "tagging"])
def test_tasks_over_sequences(task: str) -> None:
    assert parsed(task=task).task == task


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"batch_axis": None}, "expected a batch axis beside them", id="no batch"),
        pytest.param({"batch_axis": "time"}, "time: expected another axis than", id="batch"),
        pytest.param(axes(maximum=0), "padded_axes.time.maximum: expected", id="maximum"),
        pytest.param(axes(padding={}), "padded_axes.time.padding: expected", id="no inputs"),
        pytest.param(axes(padding={"tokens": "x"}), "padding.tokens: expected", id="padding"),
        pytest.param(
            axes(padding={"tokens": 0, "characters": 1}),
            "letters: padding of 'characters': expected 1, as for its other axis, got 0",
            id="two paddings",
        ),
        pytest.param(axes(masks="m"), "padded_axes.time.masks: unknown key", id="unknown key"),
        pytest.param(
            axes(lengths="tokens"), r"in an input without padding, got \['tokens'\]", id="tokens"
        ),
        pytest.param(
            {"padded_axes": {"time": TIME, "letters": {**LETTERS, "lengths": "lengths"}}},
            "letters: lengths: expected an input of its own, got 'lengths' of 'time'",
            id="shared lengths",
        ),
        pytest.param(
            axes(padding={"tokens": 100}), "'tokens': expected 0 to 99.*got 100", id="no such id"
        ),
        pytest.param(
            {"value_ranges": {"lengths": {"maximum": 9}}},
            r"expected none for lengths of a padded axis, got \['lengths'\]",
            id="range of lengths",
        ),
        pytest.param(
            {"value_ranges": {"tokens": {"minimum": 3, "maximum": 2}}},
            "value_ranges.tokens: maximum: expected at least 3, got 2",
            id="empty range",
        ),
        pytest.param(
            {"vocabularies": {"tokens": "t.txt"}},
            "expected a vocabulary of 'characters', got none",
            id="no vocabulary",
        ),
        pytest.param(
            {"tokenisation": {"rule": "bytes", "unknown": 1}},
            "tokenisation.rule: expected 'words', 'spaces', 'letters', 'subwords' or 'tok",
            id="rule",
        ),
        pytest.param(
            {"tokenisation": {"rule": "subwords", "unknown": 1}},
            "tokenisation: model: expected one with subwords or tokenizer-json alone, got None",
            id="subwords without a model",
        ),
        pytest.param(
            {"tokenisation": {"rule": "words", "unknown": 1, "model": "m"}},
            "tokenisation: model: expected one with subwords or tokenizer-json alone, got m",
            id="model without subwords",
        ),
        pytest.param(
            {"vocabularies": {"tokens": "../t.txt"}}, r"vocabularies.tokens: expected", id="path"
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        parsed(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"calibration_rows": 3}, "expected no calibration with dynamic", id="dynamic"),
        pytest.param({"method": "static"}, "expected calibration and its rows with", id="static"),
    ],
)
def test_only_static_quantisation_is_calibrated(changes: dict[str, Any], message: str) -> None:
    cost = {"method": "dynamic", "before": 0.9, "after": 0.9, "test": "rows", "test_rows": 5}
    assert parsed(quantisation=cost).quantisation is not None

    with pytest.raises(BrokenBundle, match=message):
        parsed(quantisation={**cost, **changes})


def test_vocabulary_is_read_by_id(publish: Callable[..., Path]) -> None:
    directory = publish(
        {"vocabulary.image.txt": "<pad>\n\u2028\n été\n".encode()},
        vocabularies={"image": "vocabulary.image.txt"},
    )

    bundle = read(directory)

    assert bundle.vocabulary("image") == ["<pad>", "\u2028", " été"]
    assert bundle.vocabulary("other") is None
    assert "vocabulary.image.txt" in bundle.contract.files


def test_changed_vocabulary_is_refused(publish: Callable[..., Path]) -> None:
    directory = publish({"v.txt": b"a\n"}, vocabularies={"image": "v.txt"})
    (directory / "v.txt").write_bytes(b"b\n")

    with pytest.raises(BrokenBundle, match=r"v\.txt: expected SHA-256"):
        read(directory)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        pytest.param({}, "vocabularies.image: expected a listed file, got 'v.txt'", id="missing"),
        pytest.param({"v.txt": b"\xff"}, "v.txt: expected UTF-8", id="bytes"),
    ],
)
def test_vocabulary_must_be_a_listed_text(
    added: dict[str, bytes], message: str, publish: Callable[..., Path]
) -> None:
    with pytest.raises(BrokenBundle, match=message):
        publish(added, vocabularies={"image": "v.txt"})


SUBWORDS = {
    "vocabularies": {"image": "v.txt"},
    "tokenisation": Tokenisation(rule="subwords", unknown=0, tokens="image", model="m.model"),
}


def test_model_of_subwords_is_read(publish: Callable[..., Path]) -> None:
    bundle = read(publish({"v.txt": b"a\n", "m.model": b"pieces"}, **SUBWORDS))

    assert bundle.subwords == b"pieces"


def test_model_of_subwords_must_be_listed(publish: Callable[..., Path]) -> None:
    with pytest.raises(
        BrokenBundle, match=r"tokenisation.model: expected a listed file, got 'm.model'"
    ):
        publish({"v.txt": b"a\n"}, **SUBWORDS)


MASKED = {"maximum": 9, "mask": "mask", "padding": {"mask": 0, "tokens": 1}}
JSON_RULE = {"rule": "tokenizer-json", "model": "tokenizer.json"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": "n"}, "mask: expected lengths or a mask, got n and mask"),
        ({"padding": {"tokens": 0}}, "mask: expected the padding 0 for 'mask', got none"),
        ({"padding": {"tokens": 0, "mask": 1}}, "mask: expected the padding 0 for 'mask', got 1"),
        ({"padding": {"mask": 0}}, "mask: expected another input with the axis, got 'mask' alone"),
    ],
    ids=["lengths too", "no padding", "another padding", "alone"],
)
def test_mask_that_gives_no_lengths_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        parsed(padded_axes={"time": {**MASKED, **changes}})


def test_two_axes_have_two_masks() -> None:
    with pytest.raises(BrokenBundle, match="mask: expected an input of its own, got 'mask' of"):
        parsed(padded_axes={"time": MASKED, "more": MASKED})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "tagging"}, "expected the task sequence-classification, got tagging"),
        ({"tokenisation": {**JSON_RULE, "unknown": 1}}, "unknown: expected none, the file has it"),
        ({"tokenisation": {**JSON_RULE, "lower": True}}, "expected neither lower nor characters"),
        ({"tokenisation": {"rule": "tokenizer-json"}}, "model: expected one with subwords or"),
        ({"tokenisation": {"rule": "words"}}, "unknown: expected an id, got None"),
        (
            {"tokenisation": {"rule": "words", "unknown": 1, "token_type_ids": "types"}},
            "token_type_ids: expected tokenizer-json with them, got words",
        ),
    ],
    ids=["task", "unknown", "lower", "no file", "no unknown", "types"],
)
def test_tokenizer_json_says_all_by_itself(changes: dict[str, Any], message: str) -> None:
    own = {"task": "sequence-classification", "tokenisation": JSON_RULE, **changes}

    with pytest.raises(BrokenBundle, match=message):
        parsed(**own)


def test_tokenizer_json_needs_no_vocabulary() -> None:
    own = parsed(task="sequence-classification", tokenisation=JSON_RULE, vocabularies={})

    assert own.tokenisation is not None and own.tokenisation.model == "tokenizer.json"


TOKENIZER = {
    "task": "sequence-classification",
    "tokenisation": Tokenisation(rule="tokenizer-json", tokens="image", model="tokenizer.json"),
}


def test_tokenizer_json_is_read(publish: Callable[..., Path]) -> None:
    bundle = read(publish({"tokenizer.json": b"{}"}, **TOKENIZER))

    assert (bundle.tokenizer_json, bundle.subwords) == (b"{}", None)


def test_huge_tokenizer_json_is_refused_unread(publish: Callable[..., Path]) -> None:
    directory = publish({"tokenizer.json": b"{}"}, **TOKENIZER)
    os.truncate(directory / "tokenizer.json", 2_000_000_000)  # Sparse: it takes no room.

    with pytest.raises(BrokenBundle, match=r"tokenizer\.json: expected at most 67108864 bytes"):
        read(directory)


def test_tokenizer_json_must_be_listed(publish: Callable[..., Path]) -> None:
    with pytest.raises(BrokenBundle, match=r"expected a listed file, got 'tokenizer\.json'"):
        publish({}, **TOKENIZER)
