import math
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

import weir
from tests.unit.weir.client.test_errors import Failure
from weir.client.connection import CallContext

# Takes a call, says so, and answers nothing.
SILENT = """
import threading
from concurrent.futures import ThreadPoolExecutor
import grpc

class Silent(grpc.GenericRpcHandler):
    def service(self, details):
        def wait(body, context):
            print("called", flush=True)
            threading.Event().wait()
        return grpc.unary_unary_rpc_method_handler(wait)

server = grpc.server(ThreadPoolExecutor(1), handlers=[Silent()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


@pytest.fixture
def http() -> Iterator[str]:
    """A server that speaks HTTP/1."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_server_killed_during_a_call_is_a_lost_connection() -> None:
    with subprocess.Popen([sys.executable, "-c", SILENT], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        port = one.stdout.readline().strip()
        with weir.Client(f"127.0.0.1:{port}") as client:
            answer = client.submit("echo", {"x": [[1]]})
            assert one.stdout.readline() == "called\n"
            one.kill()
            with pytest.raises(weir.Unavailable, match="the connection was lost before the answer"):
                answer.result()


def test_a_port_with_another_protocol_is_reported_as_such(http: str) -> None:
    with weir.Client(http) as client, pytest.raises(weir.Unreachable, match="speaks no gRPC"):
        client.models()


def test_a_closed_port_is_reported_as_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]

    with (
        weir.Client(f"127.0.0.1:{port}") as client,
        pytest.raises(weir.Unreachable, match=f"no server answers at 127.0.0.1:{port}"),
    ):
        client.models()


@pytest.mark.parametrize(
    ("own_s", "clients_s", "expected"),
    [(None, 30.0, 30.0), (2.0, 30.0, 2.0), (math.inf, 30.0, None), (None, None, None)],
)
def test_a_calls_own_deadline_comes_before_the_clients(
    own_s: float | None, clients_s: float | None, expected: float | None
) -> None:
    assert CallContext("host:1", timeout_s=clients_s).options(own_s)["timeout"] == expected


@pytest.mark.parametrize(
    ("tls", "says"),
    [(None, "closed the plaintext connection"), (weir.Tls(), "during the TLS handshake")],
    ids=["plaintext", "TLS"],
)
def test_error_of_a_closed_connection_knows_whether_it_had_tls(
    tls: weir.Tls | None, says: str
) -> None:
    details = (
        "failed to connect to all addresses; last error: UNAVAILABLE: "
        "ipv4:127.0.0.1:1: Socket closed"
    )

    error = CallContext("127.0.0.1:1", tls=tls).error_of(
        Failure(grpc.StatusCode.UNAVAILABLE, details)
    )

    assert isinstance(error, weir.HandshakeFailed)
    assert says in str(error)
