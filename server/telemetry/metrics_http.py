"""The HTTP port that Prometheus scrapes: `/metrics`, a line at `/` that names it, and nothing else.

prometheus-client's own server answers every path with all metrics and starts a thread for every
connection, without a limit.

Threads: `weir-metrics` accepts connections; one thread `weir-scrape` per connection answers it.

Rules:
- A request must arrive within `request_timeout_s`, and its answer must be read within `timeout_s`.
- At most `MAX_SCRAPES` connections are open. A further one takes the place of one that has sent no
  request, or does not read its answer: of the peer with the most connections the oldest. Without
  such a connection, it is closed without an answer.
- With TLS, the handshake runs on the connection's own thread, within the time of the request.
- One answer is built at a time, so that many scrapes hold Python's lock no longer than one.
- A few file descriptors are kept in reserve: when clients of gRPC hold all others, scrapes go on.
"""

import errno
import io
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

METRICS = "/metrics"
MAX_SCRAPES = 32
_TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 2.0
_RESERVE = 4
"""File descriptors kept for scrapes."""
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_NO_DESCRIPTOR_PAUSE_S = 0.1
_PLAIN = ("Content-Type", "text/plain; charset=utf-8")
_REFUSED = (_PLAIN, ("WWW-Authenticate", "Bearer"))

CheckScrape = Callable[[str | None, str], HTTPStatus]
"""The status of a scrape, by its `authorization` header and the client's address."""


@dataclass(slots=True)
class _Scrape:
    """An open connection. `is_mute` until its request has arrived."""

    peer: str
    since_s: float
    is_mute: bool = True


class ScrapeServer(ThreadingMixIn, WSGIServer):
    """The HTTP server for scrapes.

    Args:
        tls: the context of a new connection; None: plaintext.

    Raises:
        OSError: the port is not available.
    """

    thread_name = "weir-metrics"
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
        *,
        request_timeout_s: float = _REQUEST_TIMEOUT_S,
    ) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self._timeout_s, self._request_timeout_s = timeout_s, request_timeout_s
        self._tls = tls
        # Only the accepting thread adds entries.
        self._open: dict[Any, _Scrape] = {}
        self._turns = 0
        self._is_closed = False
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._reserve = [os.dup(self._null) for _ in range(_RESERVE)]
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

    def server_close(self) -> None:
        """Close the port, and what is kept in reserve."""
        super().server_close()
        self._is_closed = True
        held, self._reserve = self._reserve, []
        for descriptor in (self._null, *held):
            os.close(descriptor)

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; its TLS handshake waits for its thread."""
        request, address = self._accept()
        if self._tls is None:
            return request, address
        wrapped = self._tls().wrap_socket(
            request, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        return wrapped, address

    def _accept(self) -> tuple[Any, Any]:
        """Accept a connection, on a descriptor of the reserve if there is no other."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            if not self._reserve:
                # The connection still waits; without a pause, the thread would turn all the time.
                time.sleep(_NO_DESCRIPTOR_PAUSE_S)
                raise
        os.close(self._reserve.pop())
        return super().get_request()

    def close_request(self, request: Any) -> None:
        """Close a connection; its descriptor fills up the reserve."""
        if self._is_closed or len(self._reserve) >= _RESERVE or request.fileno() < 0:
            super().close_request(request)
            return
        # In one step: closed first, the descriptor would be taken by the next client of gRPC.
        descriptor = request.detach()
        try:
            os.dup2(self._null, descriptor)
        except OSError:  # the server was closed meanwhile
            os.close(descriptor)
            return
        self._reserve.append(descriptor)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close it if there is no place for it."""
        if len(self._open) >= MAX_SCRAPES and not self._make_room():
            self.shutdown_request(request)
            return
        thread = SupervisedThread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="weir-scrape",
            daemon=True,
        )
        self._open[request] = _Scrape(str(client_address[0]), time.monotonic())
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
            self._open.pop(request, None)

    def request_arrived(self, request: Any) -> None:
        """A connection has sent its request, and gets its answer."""
        if scrape := self._open.get(request):
            scrape.is_mute = False

    def turns(self) -> float | None:
        """A number that changes when the accepting thread turns."""
        return self._turns

    def _shakes_hands(self, request: ssl.SSLSocket) -> bool:
        """Do the TLS handshake; if it fails, close the connection and return False."""
        request.settimeout(self._timeout_s)
        try:
            request.do_handshake()
        # An ssl.SSLError is an OSError. Ended before its handshake, a socket has no TLS object.
        except (OSError, AttributeError) as error:
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
            logger.debug("scrape TLS handshake failed reason=%s", reason)
            self.shutdown_request(request)
            return False
        return True

    def service_actions(self) -> None:
        """Close the connections that are past their timeout; called every half second."""
        self._turns += 1
        now = time.monotonic()
        for request, scrape in list(self._open.items()):
            limit_s = self._request_timeout_s if scrape.is_mute else self._timeout_s
            if now - scrape.since_s > limit_s:
                _end(request)

    def _make_room(self) -> bool:
        """End a connection for another one; False if all are being answered."""
        late_s = time.monotonic() - self._request_timeout_s
        # An answer is built and read within milliseconds.
        idle = {
            request: scrape
            for request, scrape in list(self._open.items())
            if scrape.is_mute or scrape.since_s < late_s
        }
        if not idle:
            return False
        by_peer = Counter(scrape.peer for scrape in idle.values())
        request = min(idle, key=lambda each: (-by_peer[idle[each].peer], idle[each].since_s))
        # Its own thread may have ended it meanwhile.
        self._open.pop(request, None)
        _end(request)
        return True

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Log a broken connection at DEBUG; `answer` logs other errors."""
        logger.debug("scrape aborted reason=%s", sys.exc_info()[1])


class _Handler(WSGIRequestHandler):
    server: ScrapeServer

    def parse_request(self) -> bool:
        """Read the request's headers."""
        is_valid = super().parse_request()
        self.server.request_arrived(self.request)
        return is_valid

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
    check: CheckScrape | None = None,
) -> ScrapeServer:
    """Start to answer scrapes on a background thread; port 0 takes a free one."""
    server = ScrapeServer(host, port, timeout_s, tls)
    server.set_app(_only_at_its_path(make_wsgi_app(registry), check))
    SupervisedThread(
        target=server.serve_forever, name=ScrapeServer.thread_name, daemon=True
    ).start()
    return server


def _end(request: Any) -> None:
    """End a connection; its thread closes it."""
    with suppress(OSError):  # it has just ended by itself
        request.shutdown(socket.SHUT_RDWR)


def _only_at_its_path(metrics: WSGIApplication, check: CheckScrape | None) -> WSGIApplication:
    building = threading.Lock()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == METRICS:
            if check is not None:
                status = check(environ.get("HTTP_AUTHORIZATION"), environ.get("REMOTE_ADDR", ""))
                if status is not HTTPStatus.OK:
                    start_response(f"{status.value} {status.phrase}", list(_REFUSED))
                    return [f"weir: {status.phrase.lower()}\n".encode()]
            try:
                with building:
                    return metrics(environ, start_response)
            except Exception:
                logger.exception("scrape failed")
                raise
        found = "200 OK" if path in ("/", "") else "404 Not Found"
        start_response(found, [_PLAIN])
        return [f"weir: metrics are at {METRICS}\n".encode()]

    return answer
