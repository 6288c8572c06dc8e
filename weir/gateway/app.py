"""The ASGI application: every route, and what holds for all of them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from weir.client import rpc
from weir.gateway import networks, open_inference, openapi, page, tasks, upstream
from weir.gateway.endpoint import route
from weir.gateway.errors import http_error
from weir.gateway.metrics import NO_ROUTE
from weir.gateway.settings import GatewaySettings
from weir.gateway.tensors import HEADER_LENGTH

_INFER = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")


def build(settings: GatewaySettings) -> ASGIApp:
    """The application of a gateway; its channel is open between start-up and shutdown."""
    gateway = upstream.build(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        gateway.upstream.open()
        look = asyncio.create_task(gateway.upstream.look())
        yield
        look.cancel()
        await gateway.upstream.close()

    app = Starlette(
        routes=[
            *open_inference.routes(gateway),
            *tasks.routes(gateway),
            *page.routes(gateway),
            *networks.routes(gateway),
            *openapi.routes(gateway),
            route("/metrics", partial(_metrics, gateway), gateway),
        ],
        middleware=_middleware(settings),
        exception_handlers={HTTPException: partial(_http_error, gateway)},
        lifespan=lifespan,
    )
    # A browser's request of another origin needs the middleware.
    return app if settings.cors_origins else _direct(app, open_inference.infer(gateway))


def _direct(app: ASGIApp, infer: ASGIApp) -> ASGIApp:
    """The application with a shorter way for inference: past middleware and search of routes.

    That way takes a tenth of the gateway's time of a small request.
    """

    async def direct(scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and (found := _INFER.fullmatch(scope["path"]))
        ):
            scope["path_params"] = found.groupdict("")
            await infer(scope, receive, send)
        else:
            await app(scope, receive, send)

    return direct


def _middleware(settings: GatewaySettings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[HEADER_LENGTH, "Retry-After"],
        )
    ]


async def _metrics(gateway: upstream.Gateway, request: Request) -> Response:
    """The gateway's own metrics, for callers that a server lets read."""
    await gateway.upstream.unary(request, rpc.server_info())
    return Response(gateway.metrics.page(), media_type=CONTENT_TYPE_LATEST)


async def _http_error(gateway: upstream.Gateway, request: Request, error: Exception) -> Response:
    """A path that no route has, or a method that its route does not take."""
    if not isinstance(error, HTTPException):
        raise error
    gateway.metrics.count(NO_ROUTE, error.status_code)
    message = f"{request.method} {request.scope['path'][:256]}: {error.detail}"
    return http_error(error.status_code, message, dict(error.headers or {}))
