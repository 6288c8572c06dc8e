"""The HTTP port that Prometheus scrapes: `/metrics`, a line at `/` that names it, and nothing else.

prometheus-client's own server answers every path with all metrics and starts a thread for every
connection, without a limit.

Threads: `weir-metrics` accepts connections; one thread `weir-scrape` per connection answers it.

Rules:
- At most `MAX_SCRAPES` connections are open; another one is closed without an answer.
- A connection that takes longer than `timeout_s` in total is closed.
- With TLS, the handshake runs on the connection's own thread, within the same time.
- One answer is built at a time, so that many scrapes hold Python's lock no longer than one.
"""

import io
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

logger = logging.getLogger(__name__)

METRICS = "/metrics"
MAX_SCRAPES = 32
_TIMEOUT_S = 10.0


class ScrapeServer(ThreadingMixIn, WSGIServer):
    """The HTTP server for scrapes.

    Args:
        tls: the context of a new connection; None: plaintext.

    Raises:
        OSError: the port is not available.
    """

    daemon_threads = True
    # The backlog holds as many connections as are served. A connection that does not fit into it
    # is retried by the client's system only after a second.
    request_queue_size = MAX_SCRAPES

    def __init__(
        self,
        host: str,
        port: int,
        timeout_s: float,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self._timeout_s = timeout_s
        self._tls = tls
        # The time of arrival by connection. Only the accepting thread adds entries.
        self._open: dict[Any, float] = {}
        super().__init__((str(address[0]), port), _Handler)

    def server_bind(self) -> None:
        """Bind the port without HTTPServer's reverse look-up of the host name, which may block."""
        if self.address_family == socket.AF_INET6:
            # `::` is every address, IPv4 too, as for gRPC; not every system has that default.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; its TLS handshake waits for its thread."""
        request, address = super().get_request()
        if self._tls is None:
            return request, address
        wrapped = self._tls().wrap_socket(
            request, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        return wrapped, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close it if too many are open."""
        if len(self._open) >= MAX_SCRAPES:
            self.shutdown_request(request)
            return
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="weir-scrape",
            daemon=True,
        )
        self._open[request] = time.monotonic()
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads; the caller closes the connection
            del self._open[request]
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection and close it."""
        try:
            if not isinstance(request, ssl.SSLSocket) or self._shakes_hands(request):
                super().process_request_thread(request, client_address)
        finally:
            del self._open[request]

    def _shakes_hands(self, request: ssl.SSLSocket) -> bool:
        """Do the TLS handshake; if it fails, close the connection and return False."""
        request.settimeout(self._timeout_s)
        try:
            request.do_handshake()
        except OSError as error:  # an ssl.SSLError is one
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
            logger.debug("scrape TLS handshake failed reason=%s", reason)
            self.shutdown_request(request)
            return False
        return True

    def service_actions(self) -> None:
        """Close the connections that are past their timeout; called every half second."""
        late_s = time.monotonic() - self._timeout_s
        for request, since_s in list(self._open.items()):
            if since_s < late_s:
                with suppress(OSError):  # it has just ended by itself
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Log a broken connection at DEBUG; `answer` logs other errors."""
        logger.debug("scrape aborted reason=%s", sys.exc_info()[1])


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: a scrape arrives every few seconds."""

    def get_stderr(self) -> TextIO:
        """Discard the traceback of a connection that broke during an answer."""
        return io.StringIO()


def listen(
    port: int,
    host: str,
    registry: CollectorRegistry,
    *,
    timeout_s: float = _TIMEOUT_S,
    tls: Callable[[], ssl.SSLContext] | None = None,
) -> ScrapeServer:
    """Start to answer scrapes on a background thread; port 0 takes a free one."""
    server = ScrapeServer(host, port, timeout_s, tls)
    server.set_app(_only_at_its_path(make_wsgi_app(registry)))
    threading.Thread(target=server.serve_forever, name="weir-metrics", daemon=True).start()
    return server


def _only_at_its_path(metrics: WSGIApplication) -> WSGIApplication:
    building = threading.Lock()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == METRICS:
            try:
                with building:
                    return metrics(environ, start_response)
            except Exception:
                logger.exception("scrape failed")
                raise
        status = "200 OK" if path in ("/", "") else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"weir: metrics are at {METRICS}\n".encode()]

    return answer
