"""Errors as HTTP: the one table of codes, and the JSON of an error.

A body is `{"error": TEXT, "status": STATUS}` with the status of gRPC. Open Inference Protocol
clients read `error`.
"""

import math
from http import HTTPStatus

import orjson
from starlette.responses import Response

from weir.client.errors import BY_STATUS, CallError, WeirError

JSON = "application/json"

CLIENT_LEFT = 499
"""What nginx logs for a client that left."""

HTTP_CODES = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": CLIENT_LEFT,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""HTTP code of each gRPC status."""

# Statuses of the gateway's own refusals, for which gRPC has no code of HTTP.
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_STATUS_OF = {leaf: status for status, leaf in BY_STATUS.items()}


class Refused(WeirError):
    """The gateway itself refuses a request, with an HTTP code of its own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def status_of(error: Exception) -> str:
    """The gRPC status of an expected failure."""
    if isinstance(error, Refused):
        return _STATUSES.get(error.code, "INVALID_ARGUMENT")
    for kind in type(error).__mro__:
        if kind in _STATUS_OF:
            return _STATUS_OF[kind]
    return "INVALID_ARGUMENT"


def error_content(error: Exception) -> dict[str, str]:
    """The JSON of an expected failure."""
    return {"error": str(error), "status": status_of(error)}


def error_response(error: WeirError) -> Response:
    """The response of an expected failure; a delay before a retry becomes Retry-After."""
    content = error_content(error)
    code = error.code if isinstance(error, Refused) else HTTP_CODES[content["status"]]
    headers = {}
    if isinstance(error, CallError) and error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if code == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return json_response(content, code, headers)


def http_error(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """The response of a failure that has no gRPC status: no such route, no such method."""
    status = _STATUSES.get(code, "INVALID_ARGUMENT")
    return json_response({"error": message, "status": status}, code, headers)


def json_response(
    content: object, code: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(content), code, headers, JSON)
