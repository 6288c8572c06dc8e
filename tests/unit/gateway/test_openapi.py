"""The document of the HTTP interface: against the routes, the standard and its own schemas."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.applications import Starlette
from starlette.routing import Route

from weir.gateway import app, errors, openapi, page
from weir.gateway.settings import GatewaySettings

JSON = "application/json"
DOCUMENT = openapi.document()


def routes(settings: GatewaySettings) -> set[tuple[str, str]]:
    """Method and path of each route of the application, as the document writes them.

    Left out: HEAD, which Starlette adds to GET, and a path's second form with a slash at its end.
    """
    # With origins, the application has no shorter way in front.
    built = app.build(settings)
    assert isinstance(built, Starlette)
    found = {
        (method, re.sub(r"\{(\w+):path\}", r"{\1}", route.path))
        for route in built.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    second = {(method, f"{path}/") for method, path in found}
    return found - second


def described(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }


@pytest.mark.parametrize("serves_page", [True, False], ids=["page", "no page"])
def test_every_route_is_described_and_every_description_has_a_route(*, serves_page: bool) -> None:
    settings = GatewaySettings(serves_page=serves_page, cors_origins=("https://a.example",))

    assert described(openapi.document(serves_page=serves_page)) == routes(settings)


def test_document_is_valid_openapi() -> None:
    validator = jsonschema_rs.Draft202012Validator(OPENAPI_31)

    problems = [f"{each.instance_path}: {each.message}" for each in validator.iter_errors(DOCUMENT)]

    assert not problems


def test_every_schema_is_a_valid_schema() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema | {"$schema": DIALECT}), name


DIALECT = "https://json-schema.org/draft/2020-12/schema"


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from references(each)


def test_every_reference_has_its_target() -> None:
    for each in set(references(DOCUMENT)):
        target: Any = DOCUMENT
        for key in each.removeprefix("#/").split("/"):
            assert key in target, each
            target = target[key]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_names_of_operations_are_unique() -> None:
    names = [operation["operationId"] for _, operation in operations()]

    assert len(set(names)) == len(names)


def test_path_parameters_are_those_of_the_path() -> None:
    for name, operation in operations():
        parameters = [each for each in operation.get("parameters", []) if each.get("in") == "path"]
        assert {each["name"] for each in parameters} == set(re.findall(r"\{(\w+)\}", name)), name


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, operation in operations():
        yield from operation.get("requestBody", {}).get("content", {}).items()
        for response in operation["responses"].values():
            for media_type, content in response.get("content", {}).items():
                yield f"{name}: {media_type}", content


def events(stream: str) -> list[dict[str, str]]:
    """The fields of each server-sent event."""
    return [
        dict(line.split(": ", 1) for line in event.splitlines())
        for event in stream.removesuffix("\n\n").split("\n\n")
    ]


def test_examples_are_of_their_schemas() -> None:
    checked = 0
    for name, content in contents():
        schema = content["schema"] | {"components": DOCUMENT["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema)
        for example in content.get("examples", {}).values():
            is_stream = name.endswith("text/event-stream")
            for value in events(example["value"]) if is_stream else [example["value"]]:
                problems = [each.message for each in validator.iter_errors(value)]
                assert not problems, f"{name}: {example['summary']}"
                checked += 1
    assert checked > 20


def test_examples_of_parameters_are_of_their_schemas() -> None:
    shared = list(DOCUMENT["components"]["parameters"].values())
    own = [each for _, operation in operations() for each in operation.get("parameters", [])]
    for each in [*shared, *own]:
        if "example" in each:
            assert jsonschema_rs.is_valid(each["schema"], each["example"]), each["name"]


def test_every_code_of_a_call_is_documented() -> None:
    """A status that a server can give has its code with each operation that calls one."""
    codes = {
        str(errors.HTTP_CODES[status])
        for status in errors.HTTP_CODES
        if status not in {"CANCELLED", "ALREADY_EXISTS", "ABORTED"}
    }
    for name, operation in operations():
        if "security" in operation:
            assert codes <= operation["responses"].keys(), name


def test_files_of_the_documentation_are_in_the_package() -> None:
    assert {"docs.html", "docs.js", "docs.css"} <= page.read_files().keys()
