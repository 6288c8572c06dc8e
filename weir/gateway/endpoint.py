"""An endpoint: runs a handler, answers its failures, and drops its body from the budget.

Every failure that a caller can cause is a JSON error; any other is logged with its traceback and
answered with 500, without its text.
"""

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from weir.client.errors import CallError, ResourceExhausted, UsageError
from weir.gateway.errors import error_response, http_error
from weir.gateway.upstream import Gateway

logger = logging.getLogger(__name__)

# A larger answer waits for its client to read.
_PIECE_BYTES = 256 * 1024

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """The ASGI application of one route.

    Starlette's own wrapper of a handler costs several times as much as this class.
    """

    def __init__(self, handler: Handler, gateway: Gateway) -> None:
        self._handler = handler
        self._budget = gateway.budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request)
            if len(getattr(response, "body", b"")) > _PIECE_BYTES:
                await self._send_in_pieces(response, scope, send)
            else:
                await response(scope, receive, send)
        finally:
            self._budget.release(scope)

    async def _send_in_pieces(self, response: Response, scope: Scope, send: Send) -> None:
        """Send a large body as fast as its client reads, and count it until then."""
        body = memoryview(response.body)
        try:
            self._budget.charge(scope, len(body))
        except ResourceExhausted as error:
            await error_response(error)(scope, _no_body, send)
            return
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

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except (CallError, UsageError) as error:
            return error_response(error)
        except ClientDisconnect:
            raise
        except Exception:
            logger.exception("request failed path=%.256r", request.scope["path"])
            return http_error(500, "internal error of the gateway; its log has the reason")


async def _no_body() -> Message:
    return {"type": "http.disconnect"}
