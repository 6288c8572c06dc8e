"""The page at `/`: its files, and the data that it polls.

The files are public. Each endpoint of data makes a call of the servers with the caller's token, so
tokens protect the data.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weir.client import rpc
from weir.gateway.endpoint import route
from weir.gateway.errors import http_error, json_response
from weir.gateway.metrics_source import MetricsSource
from weir.gateway.upstream import Gateway

_FILES: Final = Path(__file__).parent / "static"
_INDEX = "index.html"
_DOCS = "docs.html"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
"""Headers of every file of the page."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page, read at the start: a new version of the package needs a new process."""

    content: bytes
    media_type: str
    etag: str


def routes(gateway: Gateway) -> list[Route]:
    """The page's routes; none if the page is off."""
    if not gateway.settings.serves_page:
        return []
    files = read_files()
    source = MetricsSource(gateway.settings)

    async def index(request: Request) -> Response:
        return _file_response(request, files[_INDEX])

    async def docs(request: Request) -> Response:
        return _file_response(request, files[_DOCS])

    async def static(request: Request) -> Response:
        file = files.get(request.path_params["file"])
        if file is None:
            return http_error(404, f"GET {request.url.path[:256]}: no such file")
        return _file_response(request, file)

    async def models(request: Request) -> Response:
        info, found = await asyncio.gather(
            gateway.upstream.unary(request, rpc.server_info()),
            gateway.upstream.unary(request, rpc.models()),
        )
        target = gateway.settings.advertised_target or gateway.upstream.target
        tls = gateway.settings.clients_use_tls
        return json_response({"target": target, "tls": tls, "server": info, "models": found})

    async def metrics(request: Request) -> Response:
        info = await gateway.upstream.unary(request, rpc.server_info())
        return json_response(await source.read(info, request.headers.get("authorization")))

    return [
        route("/", index, gateway),
        route("/docs", docs, gateway),
        route("/static/{file:path}", static, gateway),
        route("/page/models", models, gateway),
        route("/page/metrics", metrics, gateway),
    ]


def read_files() -> dict[str, _File]:
    """The page's files by their path in `static`. A browser's path is only looked up in it."""
    found = {}
    for path in sorted(_FILES.rglob("*")):
        media_type = _MEDIA_TYPES.get(path.suffix)
        if media_type is not None:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:32]
            found[path.relative_to(_FILES).as_posix()] = _File(content, media_type, f'"{digest}"')
    return found


def _file_response(request: Request, file: _File) -> Response:
    """The file, or 304 if the browser has it. A browser asks each time (no-cache)."""
    headers = PAGE_HEADERS | {"cache-control": "no-cache", "etag": file.etag}
    known = [
        tag.strip().removeprefix("W/")
        for tag in request.headers.get("if-none-match", "").split(",")
    ]
    if file.etag in known:
        return Response(None, 304, headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
