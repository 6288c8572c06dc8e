"""An endpoint: runs a handler, answers its failures, and drops its body from the budget.

Every failure that a caller can cause is a JSON error; any other is logged with its traceback and
answered with 500, without its text.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from weir.client.errors import CallError, UsageError
from weir.gateway.errors import error_response, http_error
from weir.gateway.upstream import Gateway

logger = logging.getLogger(__name__)

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
            await response(scope, receive, send)
        except (ClientDisconnect, asyncio.CancelledError):
            # The client is gone, so nobody waits for an answer.
            logger.debug("client left path=%s", scope["path"])
        finally:
            self._budget.release(scope)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except (CallError, UsageError) as error:
            return error_response(error)
        except ClientDisconnect:
            raise
        except Exception:
            logger.exception("request failed path=%s", request.scope["path"])
            return http_error(500, "internal error of the gateway; its log has the reason")
