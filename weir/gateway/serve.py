"""A gateway as a process: bind, listen, announce, serve until a signal, finish open requests."""

import gc
import logging
import resource
import signal
import socket
import ssl
import sys
from contextlib import suppress
from types import FrameType

import uvicorn

from weir.client.errors import UsageError
from weir.gateway.app import build
from weir.gateway.http_connection import IDLE_S, HttpConnection
from weir.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)

_BACKLOG = 2048


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UsageError: the port or the certificate cannot be used.
    """
    _raise_file_limit()
    listener = _listen(settings)
    server = _Server(_config(settings), _address(listener, settings))

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has its own while it serves, and then raises the signal again.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Objects that exist now live as long as the process; the collector need not visit them.
    gc.freeze()
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which announces its address once it listens."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logger.info("gateway listens address=%s", self._address)
        with suppress(OSError):
            sys.stdout.write(f"weir: gateway http={self._address}\n")
            sys.stdout.flush()


def _config(settings: GatewaySettings) -> uvicorn.Config:
    try:
        config = uvicorn.Config(
            build(settings),
            http=HttpConnection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=round(settings.grace_s),
            backlog=_BACKLOG,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            ssl_ca_certs=None if settings.tls_client_ca is None else str(settings.tls_client_ca),
            ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
        )
        config.load()
    except (OSError, ssl.SSLError) as error:
        files = [settings.tls_cert, settings.tls_key, settings.tls_client_ca]
        named = ", ".join(str(file) for file in files if file)
        raise UsageError(
            f"tls: {named}: expected certificates and a key in PEM: {error}"
        ) from error
    return config


def _listen(settings: GatewaySettings) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.share_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(place)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {settings.address}: {reason}") from error
    listener.setblocking(False)
    return listener


def _address(listener: socket.socket, settings: GatewaySettings) -> str:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{port}"


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
