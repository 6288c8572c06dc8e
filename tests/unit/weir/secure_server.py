"""The fake server behind TLS and bearer tokens."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.helpers.certificates import Certificate
from tests.unit.weir.fake_server import FakeServer, handlers


def server_credentials(own: Certificate, client_ca: Path | None = None) -> grpc.ServerCredentials:
    """TLS of a server; with `client_ca` mutual TLS."""
    pair = (own.key.read_bytes(), own.cert.read_bytes())
    root = client_ca.read_bytes() if client_ca else None
    return grpc.ssl_server_credentials([pair], root, require_client_auth=root is not None)


@contextmanager
def listening(
    server: grpc.Server, credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Start a server on a free port; yield its target, and stop it at the end."""
    port = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@contextmanager
def serving(
    credentials: grpc.ServerCredentials | None = None, tokens: AbstractSet[str] = frozenset()
) -> Iterator[FakeServer]:
    """A fake server that lets in calls with one of these tokens; without tokens every call."""
    fake = FakeServer(target="")
    guards: list[grpc.ServerInterceptor] = [_RequireToken(tokens)] if tokens else []
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=handlers(fake), interceptors=guards)
        with listening(server, credentials) as fake.target:
            yield fake


class _RequireToken(grpc.ServerInterceptor):
    def __init__(self, tokens: AbstractSet[str]) -> None:
        self._tokens = tokens

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        metadata = dict(handler_call_details.invocation_metadata)
        given = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if given in self._tokens:
            return continuation(handler_call_details)

        def refuse(_: object, context: grpc.ServicerContext) -> Any:
            what = "authorization: expected a known bearer token"
            context.abort(grpc.StatusCode.UNAUTHENTICATED, what)

        if handler_call_details.method.endswith(("/Watch", "/Generate")):
            return grpc.unary_stream_rpc_method_handler(refuse)
        if handler_call_details.method.endswith("/ModelStreamInfer"):
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)
