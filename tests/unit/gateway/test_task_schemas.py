from typing import Any

import pytest

from weir.client.errors import InvalidArgument
from weir.gateway import task_schemas as schemas


def test_request_without_options_has_the_clients_defaults() -> None:
    asked = schemas.read(schemas.GenerateRequest, {"text": ["a", "b"]})

    assert (asked.text, asked.version, asked.n_best, asked.max_tokens) == (["a", "b"], "", 1, 0)
    assert (asked.beam, asked.sample, asked.attention) == (None, None, False)


@pytest.mark.parametrize("version", ["", "stable", "7", 1, 2**63 - 1])
def test_version_is_a_number_or_a_label(version: str | int) -> None:
    asked = schemas.read(schemas.TagRequest, {"texts": [], "version": version})

    assert asked.version == version


@pytest.mark.parametrize(
    ("kind", "document", "message"),
    [
        (schemas.TagRequest, {}, "texts: expected a value, got none"),
        (schemas.TagRequest, {"texts": "a"}, 'texts: expected an array, got "a"'),
        (schemas.TagRequest, {"texts": [["b", 5]]}, "texts[0]: expected a text or a list of its"),
        (schemas.TagRequest, {"texts": [None]}, "its tokens, got null"),
        (schemas.TagRequest, {"texts": [], "x": 1}, "x: unknown field; expected texts, version"),
        (schemas.TagRequest, {"texts": [], "version": 0}, "number of a version or a label, got 0"),
        (schemas.TagRequest, {"texts": [], "version": True}, "or a label, got true"),
        (schemas.ClassifyRequest, {"pictures": ["a"]}, "pictures[0]: expected an object"),
        (schemas.ClassifyRequest, {"pictures": [{}]}, "pictures[0].base64: expected a value"),
        (
            schemas.ClassifyRequest,
            {"pictures": [{"base64": "", "url": "x"}]},
            "pictures[0].url: unknown field",
        ),
        (schemas.ClassifyRequest, {"pictures": [], "top": 0}, "top: expected at least 1, got 0"),
        (schemas.ClassifyRequest, {"pictures": [], "top": 2.5}, "top: expected an integer"),
        (schemas.ClassifyRequest, {"pictures": [], "top": 2**32}, "expected at most 4294967295"),
        (
            schemas.GenerateRequest,
            {"text": "a", "beam": {"width": "3"}},
            'beam.width: expected an integer, got "3"',
        ),
        (schemas.GenerateRequest, {"text": "a", "beam": 3}, "beam: expected an object, got 3"),
        (
            schemas.GenerateRequest,
            {"text": "a", "attention": 1},
            "attention: expected true or false, got 1",
        ),
        (
            schemas.GenerateRequest,
            {"text": "a", "sample": {"temperature": float("inf")}},
            "sample.temperature: expected a finite number, got inf",
        ),
        (
            schemas.ForecastRequest,
            {"columns": {"a": [1, "x"]}},
            'columns.a[1]: expected a number, got "x"',
        ),
        (schemas.ForecastRequest, {"values": [True]}, "values[0]: expected a number, got true"),
        (schemas.ForecastRequest, {"values": [[1]]}, "expected a number, got an array"),
    ],
)
def test_wrong_field_is_named_with_what_was_expected_and_what_came(
    kind: type[schemas.Request], document: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        schemas.read(kind, document)

    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "document",
    [
        {"texts": [], "\ud800": 1},
        {"texts": [], "k" * 10**6: 1},
        {"texts": [5, "v" * 10**6]},
        {"texts": [], "version": ["\ud800"]},
    ],
    ids=["surrogate", "long name", "long value", "surrogate in a value"],
)
def test_message_is_short_and_can_be_encoded(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        schemas.read(schemas.TagRequest, document)

    assert len(str(refusal.value).encode()) < 300


def test_many_wrong_fields_are_counted_not_listed() -> None:
    document = {"pictures": [{str(number): 0 for number in range(10_000)}]}

    with pytest.raises(InvalidArgument, match="got 10001 wrong ones"):
        schemas.read(schemas.ClassifyRequest, document)


def test_number_that_json_lacks_becomes_null() -> None:
    found = schemas.Class(label="a", index=0, probability=float("nan"))

    assert found.model_dump_json() == '{"label":"a","index":0,"probability":null}'
