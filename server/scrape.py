"""The port that Prometheus scrapes: `/metrics`, a line at `/` that names it, and nothing else.

prometheus-client's own server would answer any path with all metrics.
"""

from collections.abc import Iterable
from wsgiref.simple_server import WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

METRICS = "/metrics"


def listen(port: int, host: str, registry: CollectorRegistry) -> WSGIServer:
    """Answer scrapes, on a thread of prometheus-client's.

    Raises:
        OSError: the port cannot be had.
    """
    server, _ = start_http_server(port, host, registry=registry)
    server.set_app(_at_its_path(make_wsgi_app(registry)))
    return server


def _at_its_path(metrics: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == METRICS:
            return metrics(environ, start_response)
        status = "200 OK" if path in ("/", "") else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"weir: metrics are at {METRICS}\n".encode()]

    return answer
