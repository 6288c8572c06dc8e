"""The description of the HTTP interface: `/openapi.json`, and `/docs`, which shows it.

The document is made once, at the start. It has the operations that the gateway's settings offer.
Both are public, and tell nothing of the servers.
"""

from importlib.metadata import version
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weir.gateway.endpoint import route
from weir.gateway.errors import HTTP_CODES, JSON
from weir.gateway.openapi_operations import TAGS, Content, Operation, operations
from weir.gateway.openapi_schemas import Schema, components, reference
from weir.gateway.tensors import HEADER_LENGTH
from weir.gateway.upstream import Gateway

# Off with the page.
_OF_PAGE = {"Page"}
_PAGE_PATHS = {"/docs"}
# A Weir server gives none of these; a call that it cancels is UNAVAILABLE.
_NEVER_OF_SERVER = {"CANCELLED", "ALREADY_EXISTS", "ABORTED"}
_OF_SERVER = {code for status, code in HTTP_CODES.items() if status not in _NEVER_OF_SERVER}
# What `http_connection` refuses, or `endpoint` answers, whatever the path.
_OF_ANY = {400, 408, 431, 500, 503}
# What `http_connection` and `endpoint` refuse of a POST: its Transfer-Encoding, its Origin.
_OF_POST = {403, 501}
# What `body` refuses.
_OF_BODY = {400, 413, 415, 429}
_REASONS: Final = {
    400: "The request is wrong; the error names what.",
    401: "No token, or a wrong one.",
    403: "The token does not allow this, or a page of another site sent the request.",
    404: "No such model, version or file.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The Content-Encoding is neither gzip nor deflate.",
    429: "The model's queue is full, or memory is short: try again later.",
    431: "The headers are too many or too large.",
    500: "A fault of the gateway or of a server; its log has the reason.",
    501: "Not offered.",
    503: "No server answers, the model is not ready, or the gateway stops: try again later.",
    504: "The deadline passed.",
}
_WITH_DELAY = {429, 503}
_DESCRIPTION = """\
The HTTP interface of a Weir gateway, which calls servers over gRPC.

Errors are JSON: a text for a person, and the status of gRPC. A path also works with a slash at its
end under `/v2`, and each GET as HEAD. Request bodies may have the Content-Encoding gzip or deflate.
A token of the server goes into the header Authorization."""


def routes(gateway: Gateway) -> list[Route]:
    """The route of the document; the page has `/docs`, which shows it."""
    content = orjson.dumps(document(serves_page=gateway.settings.serves_page))

    async def openapi(_: Request) -> Response:
        return Response(content, media_type=JSON)

    return [route("/openapi.json", openapi, gateway)]


def document(*, serves_page: bool = True) -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    tags = []
    for each in operations():
        if serves_page or not (each.tag in _OF_PAGE or each.path in _PAGE_PATHS):
            paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
            tags.append(each.tag)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Weir",
            "version": version("weir"),
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": text} for name, text in TAGS.items() if name in tags
        ],
        "paths": paths,
        "components": {
            "schemas": components(),
            "parameters": _PARAMETERS,
            "responses": {f"Error{code}": _error(code, [_ERROR]) for code in _REASONS},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the server, which the gateway passes on.",
                }
            },
        },
    }


_ERROR = reference("Error")
_PARAMETERS: Final[dict[str, Schema]] = {
    "timeout": {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "Seconds until the call is given up with 504.",
        "schema": {
            "type": "string",
            "pattern": r"^([1-9][0-9]{0,8}(\.[0-9]{1,9})?|0\.[0-9]{0,8}[1-9])$",
        },
        "example": "5",
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "The W3C trace context, which the gateway passes on.",
        "schema": {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
        "example": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    },
    "header_length": {
        "name": HEADER_LENGTH,
        "in": "header",
        "description": "The bytes of JSON at the start of the body; binary contents follow.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    },
}


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        found["description"] = operation.description
    if parameters := _parameters(operation):
        found["parameters"] = parameters
    if operation.accepts:
        found["requestBody"] = {
            "required": operation.is_body_required,
            "content": _contents(operation.accepts),
        }
    found["responses"] = _responses(operation)
    if operation.calls_server:
        # Only servers with tokens want one.
        found["security"] = [{}, {"bearer": []}]
    return found


def _parameters(operation: Operation) -> list[Schema]:
    found: list[Schema] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            "example": example,
        }
        for name, example in operation.examples.items()
    ]
    found += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in operation.query.items()
    ]
    shared = ["timeout", "traceparent"] if operation.calls_server else []
    if any(each.media_type == "application/octet-stream" for each in operation.accepts):
        shared.insert(0, "header_length")
    return found + [{"$ref": f"#/components/parameters/{name}"} for name in shared]


def _responses(operation: Operation) -> dict[str, Any]:
    codes = set(_OF_ANY | operation.refuses)
    if operation.calls_server:
        codes |= _OF_SERVER
    if operation.method == "POST":
        codes |= _OF_POST
    if operation.accepts:
        codes |= _OF_BODY
    found: dict[str, Any] = {}
    if operation.is_answered:
        success = found["200"] = {"description": "Success."}
        if operation.answers:
            success["content"] = _contents(operation.answers)
        if len(operation.answers) > 1:
            success["headers"] = {
                HEADER_LENGTH: {
                    "description": "The bytes of JSON before binary contents.",
                    "schema": {"type": "string"},
                }
            }
    for code in sorted(codes | operation.others.keys()):
        schema = operation.others.get(code)
        if schema is not None:
            found[str(code)] = _error(code, [schema, _ERROR])
        elif code in operation.others:
            found[str(code)] = {"description": "The client has this file."}
        else:
            found[str(code)] = {"$ref": f"#/components/responses/Error{code}"}
    return found


def _contents(contents: tuple[Content, ...]) -> dict[str, Any]:
    return {each.media_type: _content(each) for each in contents}


def _content(content: Content) -> dict[str, Any]:
    found: dict[str, Any] = {"schema": content.schema}
    if content.examples:
        found["examples"] = {
            name.replace(" ", "-"): {"summary": name.capitalize(), "value": value}
            for name, value in content.examples.items()
        }
    return found


def _error(code: int, schemas: list[Schema]) -> dict[str, Any]:
    statuses = [status for status, mapped in HTTP_CODES.items() if mapped == code]
    described = f" Statuses of gRPC: {', '.join(statuses)}." if statuses else ""
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    found: dict[str, Any] = {
        "description": _REASONS[code] + described,
        "content": {JSON: {"schema": schema}},
    }
    if code in _WITH_DELAY:
        found["headers"] = {
            "Retry-After": {
                "description": "Seconds before the next try, if the server gives them.",
                "schema": {"type": "string", "pattern": "^[0-9]+$"},
            }
        }
    return found
