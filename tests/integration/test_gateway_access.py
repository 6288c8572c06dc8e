"""Who may call the gateway from a browser, and what it counts of its calls."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers import onnx_models
from tests.helpers.certificates import Authority
from tests.helpers.gateway import gateway, gateway_process
from tests.helpers.http_client import HttpClient, received
from tests.helpers.waiting import wait_until
from tests.integration.gateway_world import AFFINE, INFER
from tests.integration.harness import Server, running

TOKEN = "secret-of-someone-0123456789"  # noqa: S105 - of the tests
OTHER = "https://other.example"
REQUESTS = "weir_gateway_requests_total"
OPEN_INFERENCE = "/v2/models/{name}/infer"


@pytest.fixture(scope="module")
def server(serve_house: Any) -> Server:
    found: Server = serve_house("completion-queue")
    return found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[HttpClient]:
    with gateway(server.target) as address:
        yield HttpClient(address)


@pytest.fixture(scope="module")
def shared_client(server: Server) -> Iterator[HttpClient]:
    """Of a gateway that the pages of another origin may call."""
    with gateway(server.target, "--cors-origin", OTHER) as address:
        yield HttpClient(address)


def samples(client: HttpClient) -> Mapping[tuple[str, ...], float]:
    """The gateway's metrics, by name, route and code."""
    answer = client.get("/metrics")
    assert answer.code == 200
    return {
        (sample.name, sample.labels.get("route", ""), sample.labels.get("code", "")): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"origin": "http://HOST"}, 200),
        ({"origin": "https://HOST"}, 200),  # TLS ends at a proxy
        ({"origin": "https://HOST", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": OTHER, "sec-fetch-site": "same-origin"}, 200),  # a proxy renames the host
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": OTHER}, 403),
        ({"origin": "null"}, 403),
        ({"origin": OTHER, "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://HOST", "sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
def test_pages_of_other_sites_send_nothing(
    client: HttpClient, path: str, headers: Mapping[str, str], code: int
) -> None:
    sent = {name: value.replace("HOST", client.address) for name, value in headers.items()}

    answer = client.post(path, AFFINE if path == INFER else {}, sent)

    assert answer.code == code, answer.body
    assert "access-control-allow-origin" not in answer.headers
    if code == 403:
        assert answer.json()["status"] == "PERMISSION_DENIED"
        assert "--cors-origin" in answer.json()["error"]


def test_an_origin_that_was_named_may_call(shared_client: HttpClient) -> None:
    browser = {"origin": OTHER, "sec-fetch-site": "cross-site"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-a"}

    preflight = shared_client.ask("OPTIONS", INFER, headers=browser | asked)
    answer = shared_client.post(INFER, AFFINE, browser)

    assert (preflight.code, answer.code) == (200, 200)
    assert preflight.headers["access-control-allow-origin"] == OTHER
    assert answer.headers["access-control-allow-origin"] == OTHER


def test_an_origin_that_was_not_named_may_not(shared_client: HttpClient) -> None:
    browser = {"origin": "https://third.example", "sec-fetch-site": "cross-site"}
    asked = {"access-control-request-method": "POST"}

    preflight = shared_client.ask("OPTIONS", INFER, headers=browser | asked)
    answer = shared_client.post(INFER, AFFINE, browser)

    assert (preflight.code, answer.code) == (400, 403)
    assert "access-control-allow-origin" not in preflight.headers
    assert "access-control-allow-origin" not in answer.headers


def test_servers_with_certificates_and_tokens_are_reached(tmp_path: Path) -> None:
    """The server's certificate is for another name, and it asks for the gateway's own."""
    authority = Authority(tmp_path / "authority")
    own, of_gateway = authority.issue("weir.example"), authority.issue("gateway")
    tokens = tmp_path / "tokens.toml"
    tokens.touch(mode=0o600)
    tokens.write_text(f"[tokens.one]\ntoken = '{TOKEN}'\ncalls = ['infer']\n")
    flags = ("--tls-cert", own.cert, "--tls-key", own.key, "--tls-client-ca", authority.ca)
    onnx_models.write_plain(tmp_path / "models", "affine", onnx_models.affine())
    access = ("--ca", authority.ca, "--cert", of_gateway.cert, "--key", of_gateway.key)
    with running(
        tmp_path / "models",
        tmp_path / "log",
        *map(str, flags),
        "--tokens-file",
        str(tokens),
        ready=False,
    ) as server:
        server.wait_for_log("server ready")
        with gateway(server.target, *map(str, access), "--server-name", "weir.example") as address:
            client = HttpClient(address)
            let_in = client.post(INFER, AFFINE, {"authorization": f"Bearer {TOKEN}"})
            stranger = client.post(INFER, AFFINE)
        with gateway(server.target, "--tls", "--ca", str(authority.ca)) as address:
            unknown = HttpClient(address).post(INFER, AFFINE, {"x-request-timeout": "2"})

    assert (let_in.code, stranger.code) == (200, 401)
    assert stranger.headers["www-authenticate"] == "Bearer"
    assert unknown.code in (503, 504)


def test_two_tokens_are_refused(client: HttpClient) -> None:
    with closing(client.connect()) as connection:
        connection.putrequest("GET", "/v2")
        for token in ("one", "two"):
            connection.putheader("authorization", f"Bearer {token}")
        connection.endheaders()
        answer = received(connection.getresponse())

    assert answer.code == 400
    assert answer.json()["error"] == "authorization: expected one header, got several"


def test_requests_are_counted_by_route_and_code(server: Server) -> None:
    with gateway(server.target) as address:
        client = HttpClient(address)
        for _ in range(3):
            assert client.post(INFER, AFFINE).code == 200
        assert client.post("/v2/models/affine/versions/7/infer", AFFINE).code == 200
        assert client.post("/v2/models/no-such/infer", AFFINE).code == 404
        assert client.post(INFER, b"{").code == 400
        assert client.get("/v2/models/affine/ready").code == 200
        assert client.get("/no-such").code == 404
        found = samples(client)
        again = samples(client)

    assert found[REQUESTS, OPEN_INFERENCE, "200"] == 4
    assert found[REQUESTS, OPEN_INFERENCE, "404"] == 1
    assert found[REQUESTS, OPEN_INFERENCE, "400"] == 1
    assert found["weir_gateway_request_seconds_count", OPEN_INFERENCE, ""] == 6
    assert found[REQUESTS, "/v2/models/{name}/ready", "200"] == 1
    assert found[REQUESTS, "none", "404"] == 1
    assert found["weir_gateway_body_bytes", "", ""] == 0
    assert found["process_resident_memory_bytes", "", ""] > 0
    assert (REQUESTS, "/metrics", "200") not in found
    assert again[REQUESTS, "/metrics", "200"] == 1


def test_client_that_leaves_is_counted(server: Server) -> None:
    with gateway(server.target) as address:
        client = HttpClient(address)
        host, port = address.split(":")
        head = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(AFFINE)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + AFFINE[:5])

        wait_until(
            lambda: samples(client).get((REQUESTS, OPEN_INFERENCE, "499")) == 1,
            "the client to be counted",
        )


def test_without_a_server_the_log_says_so_and_metrics_are_closed(tmp_path: Path) -> None:
    """No server listens on the discard port."""
    log = tmp_path / "log"
    with gateway_process("127.0.0.1:9", log=log) as (address, _):
        answer = HttpClient(address).get("/metrics", {"x-request-timeout": "1"})
        warning = "WARNING weir.gateway.upstream: no server answers target=127.0.0.1:9 "
        wait_until(lambda: warning in log.read_text(), "the gateway to miss the server")

    assert answer.code in (503, 504)
    assert b"weir_gateway" not in answer.body
