"""An endpoint: runs a handler, answers its failures, and drops its body from the budget.

Every failure that a caller can cause is a JSON error; any other is logged with its traceback and
answered with 500, without its text.
"""

import logging
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from weir.client.errors import ResourceExhausted, WeirError
from weir.gateway.errors import CLIENT_LEFT, Refused, error_response, http_error
from weir.gateway.upstream import Gateway

logger = logging.getLogger(__name__)

# A larger answer waits for its client to read.
_PIECE_BYTES = 256 * 1024

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """The ASGI application of one route.

    Starlette's own wrapper of a handler costs several times as much as this class.

    Args:
        route: the path of its route, as metrics name it.
    """

    def __init__(self, handler: Handler, gateway: Gateway, route: str) -> None:
        self._handler = handler
        self._budget = gateway.budget
        self._metrics = gateway.metrics
        self._origins = gateway.settings.cors_origins
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        start_s = time.perf_counter()
        code = CLIENT_LEFT
        try:
            response = await self._answer(request)
            if len(getattr(response, "body", b"")) > _PIECE_BYTES:
                code = await self._send_in_pieces(response, scope, send)
            else:
                await response(scope, receive, send)
                code = response.status_code
        finally:
            self._budget.release(scope)
            self._metrics.observe(self._route, code, time.perf_counter() - start_s)

    async def _send_in_pieces(self, response: Response, scope: Scope, send: Send) -> int:
        """Send a large body as fast as its client reads, and count it until then; the code sent."""
        body = memoryview(response.body)
        try:
            self._budget.charge(scope, len(body))
        except ResourceExhausted as error:
            refusal = error_response(error)
            await refusal(scope, _no_body, send)
            return refusal.status_code
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": response.raw_headers,
            }
        )
        for start in range(0, len(body), _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            more = start + len(piece) < len(body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        return response.status_code

    async def _answer(self, request: Request) -> Response:
        try:
            self._check_origin(request)
            return await self._handler(request)
        except WeirError as error:
            return error_response(error)
        except ClientDisconnect:
            raise
        except Exception:
            logger.exception("request failed path=%.256r", request.scope["path"])
            return http_error(500, "internal error of the gateway; its log has the reason")

    def _check_origin(self, request: Request) -> None:
        """Refuse what a page of another site sends by the browser of a user with access.

        A browser sends such a request without asking, and hides only the answer. It names the
        relation of the two sites, or at least the page's origin; other clients send neither.

        Raises:
            Refused: its origin is neither this one nor one of `cors_origins`.
        """
        if request.scope["method"] != "POST":
            return
        relation = origin = host = ""
        for name, value in request.scope["headers"]:
            if name == b"sec-fetch-site":
                relation = value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"host":
                host = value.decode("latin-1")
        if relation in ("same-origin", "none") or origin in self._origins or "*" in self._origins:
            return
        if relation or (origin and origin.partition("://")[2] != host):
            raise Refused(
                403,
                f"Origin: expected a page of this gateway, or --cors-origin, got {origin[:256]!r}",
            )


def route(path: str, handler: Handler, gateway: Gateway, *methods: str) -> Route:
    """A route with an endpoint, by default for GET; metrics name a model's version by no number."""
    name = path.replace("/versions/{version}", "")
    return Route(path, Endpoint(handler, gateway, name), methods=methods or ("GET",))


async def _no_body() -> Message:
    return {"type": "http.disconnect"}
