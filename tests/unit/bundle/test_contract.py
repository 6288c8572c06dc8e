import json
from typing import Any

import pytest
from pydantic import ValidationError

from weir.bundle.contract import Contract, parse
from weir.bundle.errors import BrokenBundle

SMALLEST: dict[str, Any] = {
    "format": 1,
    "task": "other",
    "architecture": "mine",
    "tolerance": {"absolute": 1e-5, "relative": 1e-5},
}


def encoded(**changes: object) -> bytes:
    return json.dumps({**SMALLEST, **changes}).encode()


def test_defaults_of_the_smallest_contract() -> None:
    contract = parse(encoded())

    assert contract.batch_axis == "batch"
    assert contract.batching.max_rows == 32
    assert contract.batching.max_tokens is None
    assert contract.batching.max_queue_delay_s == 0.0
    assert contract.files == {} and contract.labels == {}
    assert (contract.precision, contract.providers) == ("fp32", ["cpu", "cuda"])
    assert contract.quantisation is None and contract.sharing is None


def test_what_is_written_is_read_back(contract: Contract) -> None:
    assert parse(contract.model_dump_json().encode()) == contract


def test_contract_is_immutable(contract: Contract) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        contract.task = "other"


PICTURES: dict[str, Any] = {
    "input": "image",
    "height": 224,
    "width": 200,
    "channels": 3,
    "resize": "short-side",
    "short_side": 256,
    "output": "probabilities",
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="short-side"),
        pytest.param({"short_side": 224}, id="smallest"),
        pytest.param({"resize": "stretch", "short_side": None}, id="stretch"),
    ],
)
def test_preprocessing_is_read_back(changes: dict[str, Any]) -> None:
    contract = parse(encoded(preprocessing={**PICTURES, **changes}))

    assert contract.preprocessing is not None
    assert contract.preprocessing.model_dump() == {**PICTURES, **changes}
    assert parse(contract.model_dump_json().encode()) == contract


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"short_side": None}, "expected at least 224, got None", id="none"),
        pytest.param({"short_side": 223}, "expected at least 224, got 223", id="too-short"),
        pytest.param({"resize": "stretch"}, "expected none with stretch, got 256", id="stretch"),
        pytest.param({"resize": "pad"}, "resize: expected 'stretch' or 'short-side'", id="way"),
        pytest.param({"channels": 4}, "channels: expected 1 or 3, got 4", id="channels"),
        pytest.param({"width": 0}, "width: expected greater than", id="width"),
        pytest.param({"mean": 0.5}, "preprocessing.mean: unknown key", id="unknown-key"),
    ],
)
def test_impossible_preprocessing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        parse(encoded(preprocessing={**PICTURES, **changes}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(encoded(extra=1), "model.json: extra: unknown key", id="unknown-key"),
        pytest.param(
            encoded(batching={"max_row": 1}), "batching.max_row: unknown key", id="nested-key"
        ),
        pytest.param(encoded(task="chess"), "task: expected 'image-class", id="unknown-task"),
        pytest.param(encoded(architecture=3), "architecture: expected a valid string", id="type"),
        pytest.param(encoded(batching={"max_rows": "8"}), "max_rows: expected", id="coercion"),
        pytest.param(encoded(batching={"max_tokens": 0}), "max_tokens: expected", id="tokens"),
        pytest.param(encoded(batching={"max_rows": 0}), "max_rows: expected.*got 0", id="bound"),
        pytest.param(encoded(files={"../x": "0" * 64}), r"\.\./x", id="path"),
        pytest.param(encoded(files={"x": "ABC"}), "files.x: expected.*'ABC'", id="hash"),
        pytest.param(b'{"format": 1}', "task: expected a value, got none", id="missing"),
        pytest.param(b"", "expected JSON", id="empty"),
        pytest.param(b"\xff\x00", "expected JSON", id="random"),
        pytest.param(b"[" * 100_000, "expected JSON", id="deep"),
        pytest.param(encoded()[:-9], "expected JSON", id="truncated"),
        pytest.param(b"[]", "expected an object", id="no-object"),
    ],
)
def test_refuses_and_says_where(text: bytes, message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        parse(text)


COST = {
    "before": 0.9,
    "after": 0.89,
    "calibration": "training rows",
    "calibration_rows": 512,
    "test": "test rows",
    "test_rows": 100,
}


def test_cost_of_quantisation_is_read_back() -> None:
    contract = parse(encoded(precision="int8", providers=["cpu"], quantisation=COST))

    assert contract.quantisation is not None
    assert contract.quantisation.model_dump() == {"method": "static", **COST}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"precision": "int4"}, "precision: expected 'fp32', 'fp16' or", id="unknown"),
        pytest.param({"providers": []}, "providers: expected.* at least 1 item", id="none"),
        pytest.param(
            {"providers": ["tpu"]}, "providers.0: expected 'cpu' or 'cuda'", id="provider"
        ),
        pytest.param(
            {"quantisation": {**COST, "test_rows": 0}}, "test_rows: expected greater", id="rows"
        ),
        pytest.param(
            {"quantisation": {"after": 1.0}}, "quantisation.before: expected", id="partly"
        ),
    ],
)
def test_impossible_precision_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        parse(encoded(**changes))


def test_unknown_format_is_the_only_thing_said() -> None:
    with pytest.raises(BrokenBundle) as raised:
        parse(encoded(format=2, padded_axes={}))

    assert str(raised.value) == "model.json: format: expected 1, got 2"


def test_each_problem_has_its_line() -> None:
    with pytest.raises(BrokenBundle) as raised:
        parse(encoded(extra=1, architecture=None))

    assert len(str(raised.value).splitlines()) == 2


def test_long_values_are_cut_short() -> None:
    with pytest.raises(BrokenBundle) as raised:
        parse(encoded(task="x" * 10_000))

    assert len(str(raised.value)) < 300


def test_many_problems_are_counted_not_listed() -> None:
    with pytest.raises(BrokenBundle) as raised:
        parse(encoded(**{f"key{number}": 1 for number in range(10_000)}))

    lines = str(raised.value).splitlines()
    assert len(lines) == 9
    assert lines[-1] == "model.json: and 9992 more"


def test_keys_are_escaped() -> None:
    with pytest.raises(BrokenBundle) as raised:
        parse(encoded(**{"\x1b[31m\nmodel ready": 1, "k" * 1_000_000: 1}))

    first, second = str(raised.value).splitlines()
    assert first == r"model.json: \x1b[31m\nmodel ready: unknown key"
    assert len(second) < 300


WHOLE = encoded()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"", "expected JSON", id="empty"),
        pytest.param(b"\0" * 64, "expected JSON", id="zeros"),
        pytest.param(b"null", "expected an object", id="null"),
        pytest.param(b"[" * 1_000_000, "recursion limit", id="deep-lists"),
        pytest.param(b'{"a":' * 1_000_000, "recursion limit", id="deep-objects"),
        pytest.param(WHOLE[:-1] + b', "seed": NaN}', "model.json", id="nan"),
        pytest.param(
            WHOLE[:-1] + b', "batching": {"max_queue_delay_s": NaN}}',
            "expected a finite number",
            id="nan-of-a-known-key",
        ),
        pytest.param(
            WHOLE[:-1] + b', "batching": {"max_queue_delay_s": 1e999}}',
            "expected a finite number",
            id="past-infinity",
        ),
        pytest.param(
            WHOLE[:-1] + b', "batching": {"max_rows": ' + b"9" * 1_000_000 + b"}}",
            "number out of range",
            id="a-million-digits",
        ),
        pytest.param(WHOLE[:-1] + b', "commit": "\\ud800"}', "expected JSON", id="lone-surrogate"),
        pytest.param(WHOLE[:-1] + b', "commit": "\xff"}', "expected JSON", id="no-utf-8"),
        pytest.param(b"\xef\xbb\xbf" + WHOLE, "expected JSON", id="byte-order-mark"),
        pytest.param(WHOLE.decode().encode("utf-16"), "expected JSON", id="utf-16"),
        pytest.param(WHOLE + b"{}", "trailing characters", id="more-behind-it"),
        pytest.param(
            WHOLE[:-1] + b', "task": "other"}',
            "'task': expected the key once, got it twice",
            id="key-twice",
        ),
        pytest.param(
            WHOLE[:-1] + b', "versions": {"a": "1", "a": "2"}}',
            "'a': expected the key once, got it twice",
            id="key-twice-further-in",
        ),
    ],
)
def test_odd_json_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        parse(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"batching": {"max_rows": 1_000_001}},
        {"batching": {"max_tokens": 2**31}},
        {"batching": {"max_queue_delay_s": 86_401}},
        {"padded_axes": {"time": {"maximum": 2**63, "padding": {"tokens": 0}}}},
        {"padded_axes": {"time": {"maximum": 8, "padding": {"tokens": -(2**63) - 1}}}},
        {"value_ranges": {"tokens": {"maximum": 2**63}}},
    ],
    ids=["rows", "tokens", "delay", "length", "padding", "value"],
)
def test_number_that_no_tensor_holds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BrokenBundle, match=r"expected less than|expected greater than"):
        parse(encoded(**changes))


def test_names_that_differ_by_case_alone_are_refused() -> None:
    """On some machines they are one file."""
    files = dict.fromkeys(("model.onnx", "labels.txt", "Labels.txt"), "0" * 64)

    with pytest.raises(BrokenBundle, match=r"got 'labels\.txt' and 'Labels\.txt'"):
        parse(encoded(files=files))
