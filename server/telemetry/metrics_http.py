"""The port that Prometheus scrapes: `/metrics`, a line at `/` that names it, and nothing else.

prometheus-client's own server would answer any path with all metrics, and start as many threads as are asked of it.

Threads: `weir-metrics` accepts connections; each is answered by a `weir-scrape` of its own.

Rules:
- At most `MOST_SCRAPES` connections are open; one more is closed unanswered.
- One that takes longer than `longest_s` in all, to ask or to read, is closed.
- One answer is made at a time: many who ask at once take no more of Python's lock than one does.
"""

import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

logger = logging.getLogger(__name__)

METRICS = "/metrics"
MOST_SCRAPES = 32
_LONGEST_S = 10.0


class ScrapeServer(ThreadingMixIn, WSGIServer):
    """Answers scrapes.

    Args:
        host: to listen on.
        port: 0 takes a free one.
        longest_s: that a connection may take.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True
    # As many may come at once as find room: one that did not would try again only after a second.
    request_queue_size = MOST_SCRAPES

    def __init__(self, host: str, port: int, longest_s: float) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self._longest_s = longest_s
        # By connection, when it came. Only the accepting thread adds.
        self._open: dict[Any, float] = {}
        super().__init__((str(address[0]), port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, if there is room for it."""
        if len(self._open) >= MOST_SCRAPES:
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
        except (
            RuntimeError
        ):  # the system has no more threads: the connection is closed, and counts no longer
            del self._open[request]
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, and close it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._open[request]

    def service_actions(self) -> None:
        """Between two looks for connections: end those that take too long."""
        late_s = time.monotonic() - self._longest_s
        for request, since_s in list(self._open.items()):
            if since_s < late_s:
                with suppress(OSError):  # it has just ended by itself
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """A connection that broke off is nobody's concern; what fails in an answer is logged there."""
        logger.debug("scrape broken off reason=%s", sys.exc_info()[1])


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has there
        """Log nothing: a scrape comes every few seconds."""

    def get_stderr(self) -> TextIO:
        """Where a traceback goes of a connection that broke off in an answer: nowhere."""
        return io.StringIO()


def listen(
    port: int, host: str, registry: CollectorRegistry, *, longest_s: float = _LONGEST_S
) -> ScrapeServer:
    """Answer scrapes, on threads of its own.

    Args:
        port: 0 takes a free one.
        host: to listen on.
        registry: whose metrics are told.
        longest_s: that a connection may take.

    Raises:
        OSError: the port cannot be had.
    """
    server = ScrapeServer(host, port, longest_s)
    server.set_app(_at_its_path(make_wsgi_app(registry)))
    threading.Thread(target=server.serve_forever, name="weir-metrics", daemon=True).start()
    return server


def _at_its_path(metrics: WSGIApplication) -> WSGIApplication:
    making = threading.Lock()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == METRICS:
            try:
                with making:
                    return metrics(environ, start_response)
            except Exception:
                logger.exception("scrape failed")
                raise
        status = "200 OK" if path in ("/", "") else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"weir: metrics are at {METRICS}\n".encode()]

    return answer
