"""A gateway as a process: bind, listen, announce, serve until a signal, finish open requests.

At the first signal the gateway accepts no more connections and lets open requests finish. At the
end of the grace the calls of the servers are cancelled: each open request is answered with 503, and
a stream ends with an error. The second signal ends the process at once.
"""

import asyncio
import gc
import logging
import resource
import signal
import socket
import ssl
import sys
from contextlib import suppress
from functools import partial
from types import FrameType

import uvicorn

from weir.client.errors import UsageError
from weir.gateway.app import build
from weir.gateway.http_connection import ConnectionLimits, HttpConnection
from weir.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)

_BACKLOG = 2048
# Time to send the answers of requests whose calls were cancelled at the end of the grace.
_FLUSH_S = 1.0
_CHECK_S = 0.05


def serve(settings: GatewaySettings, limits: ConnectionLimits | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        limits: of each connection; by default the usual ones.

    Raises:
        UsageError: the port or the certificate cannot be used.
    """
    _raise_file_limit()
    listener = _listen(settings)
    config = _config(settings, limits or ConnectionLimits())
    server = _Server(config, _address(listener, settings), settings.grace_s)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has its own while it serves, and then raises the signal again.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Objects that exist now live as long as the process; the collector need not visit them.
    gc.freeze()
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which announces its address once it listens, and stops in its own way."""

    def __init__(self, config: uvicorn.Config, address: str, grace_s: float) -> None:
        super().__init__(config)
        self._address = address
        self._grace_s = grace_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logger.info("gateway listens address=%s", self._address)
        with suppress(OSError):
            sys.stdout.write(f"weir: gateway http={self._address}\n")
            sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logger.info("gateway stops open_requests=%d", len(self.server_state.tasks))
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._is_done(self._grace_s):
            logger.warning("gateway cancels requests open=%d", len(self.server_state.tasks))
            for connection in list(self.server_state.connections):
                if isinstance(connection, HttpConnection):
                    connection.stop()
            # Closes the channel, which cancels the calls.
            await self.lifespan.shutdown()
            await self._is_done(_FLUSH_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self.lifespan.shutdown()

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    async def _is_done(self, limit_s: float) -> bool:
        """Whether all connections are closed, within a time; true at the second signal too."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        state = self.server_state
        while (state.connections or state.tasks) and not self.force_exit:
            if loop.time() >= end_s:
                return False
            await asyncio.sleep(_CHECK_S)
        return True


def _config(settings: GatewaySettings, limits: ConnectionLimits) -> uvicorn.Config:
    files = {
        "--tls-cert": settings.tls_cert,
        "--tls-key": settings.tls_key,
        "--tls-client-ca": settings.tls_client_ca,
    }
    given = {option: path for option, path in files.items() if path is not None}
    for option, path in given.items():
        try:
            path.read_bytes()
        except OSError as error:
            raise UsageError(f"{option} {path}: {error.strerror or error}") from None
    try:
        config = uvicorn.Config(
            build(settings),
            http=partial(HttpConnection, limits),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type]
            backlog=_BACKLOG,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            ssl_ca_certs=None if settings.tls_client_ca is None else str(settings.tls_client_ca),
            ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
        )
        config.load()
    except OSError as error:
        named = ", ".join(f"{option} {path}" for option, path in given.items())
        raise UsageError(
            f"{named}: expected PEM files with a certificate and its own key, got "
            f"{error.strerror or error}"
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
