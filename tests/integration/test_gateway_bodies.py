"""Requests to the gateway that are too large, broken, or another protocol.

Beside each of them a gRPC caller calls the server and an HTTP caller the gateway.
"""

import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.integration.conftest import running_to_the_end
from tests.integration.gateway_world import (
    AFFINE,
    CLOSE,
    INFER,
    MAX_BODY_BYTES,
    MEGABYTE,
    Gateway,
    binary_body,
    callers,
    grpc_caller,
    running_gateway,
    write_world,
)
from tests.integration.harness import ANSWER_S, Server
from tests.integration.raw_http import Answer, RawClient, ask, get, post, request

pytestmark = pytest.mark.timeout(300)

CHUNKED = "Transfer-Encoding: chunked"
SPACES = b" " * MAX_BODY_BYTES


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    world = write_world(tmp_path_factory.mktemp("world"))
    log = tmp_path_factory.mktemp("server") / "log"
    with running_to_the_end(world, log, "--config", str(world / "weir.toml")) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(server.target, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def unharmed(server: Server, gateway: Gateway) -> Iterator[Gateway]:
    """The gateway, beside two callers that must be answered throughout."""
    with callers(server, gateway):
        yield gateway


def refused(answer: Answer, *codes: int) -> str:
    """The message of an error in JSON."""
    assert answer.code in codes, (answer.code, answer.body[:500])
    assert answer.headers["content-type"] == "application/json"
    assert answer.json.keys() == {"error", "status"}
    message = answer.json["error"]
    assert isinstance(message, str)
    assert len(message) < 2000
    return message


def in_chunks(path: str, *chunks: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return request("POST", path, CHUNKED) + framed


# Size


def test_body_at_the_limit_is_taken_and_one_byte_more_refused(unharmed: Gateway) -> None:
    room = MAX_BODY_BYTES - len(AFFINE)
    for send in (post, in_chunks):
        assert ask(unharmed.address, send(INFER, AFFINE + SPACES[:room])).code == 200

        with RawClient(unharmed.address) as client:
            client.send(send(INFER, AFFINE + SPACES[: room + 1]))
            message = refused(client.answer(), 413)
            assert str(MAX_BODY_BYTES) in message
            # The rest of the body was dropped: the connection goes on.
            client.send(get("/v2"))
            assert client.answer().code == 200


def test_announced_length_is_refused_before_a_byte_of_it(unharmed: Gateway) -> None:
    with RawClient(unharmed.address) as client:
        client.send(request("POST", INFER, "Content-Length: 10000000000", "Expect: 100-continue"))

        refused(client.answer(), 413)


def test_length_beyond_64_bits_is_refused(unharmed: Gateway) -> None:
    refused(ask(unharmed.address, request("POST", INFER, "Content-Length: 1" + "0" * 30)), 400)


def test_expected_continue_is_sent(unharmed: Gateway) -> None:
    with RawClient(unharmed.address) as client:
        length = f"Content-Length: {len(AFFINE)}"
        client.send(request("POST", INFER, length, "Expect: 100-continue"))
        head = client.socket.recv(100)
        client.send(AFFINE)

        assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.answer().code == 200


@pytest.mark.parametrize(
    ("encoding", "body", "codes"),
    [
        ("gzip", gzip.compress(bytes(100 * MEGABYTE)), (413,)),
        ("deflate", zlib.compress(bytes(100 * MEGABYTE)), (413,)),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(100 * MEGABYTE))), (415,)),
        ("gzip", gzip.compress(gzip.compress(bytes(100 * MEGABYTE))), (400,)),
        ("br", AFFINE, (415,)),
        ("gzip", AFFINE, (400,)),
        ("gzip", gzip.compress(AFFINE)[:-9], (400,)),
        ("gzip", gzip.compress(AFFINE) + b"behind", (400,)),
        ("gzip", b"", (400,)),
    ],
    ids=["gzip", "deflate", "twice", "nested", "unknown", "none", "cut", "behind", "empty"],
)
def test_compressed_body_that_is_a_bomb_or_broken_is_refused(
    unharmed: Gateway, encoding: str, body: bytes, codes: tuple[int, ...]
) -> None:
    refused(ask(unharmed.address, post(INFER, body, f"Content-Encoding: {encoding}")), *codes)


def test_many_large_bodies_are_bounded_together(server: Server, gateway: Gateway) -> None:
    values = np.zeros((1, MAX_BODY_BYTES // 4 - 1000), np.float32)
    body = binary_body("echo", values)
    before = gateway.memory_bytes()

    with grpc_caller(server.target), ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: ask(gateway.address, body), range(80)))

    codes = {answer.code for answer in answers}
    assert codes <= {200, 429, 503}
    assert 200 in codes
    for answer in answers:
        if answer.code == 200:
            assert answer.body.endswith(values.tobytes())
        else:
            refused(answer, 429, 503)
    # Eight bodies count at a time; each has copies in its message, in gRPC and in the answer.
    assert gateway.memory_bytes() - before < 8 * 6 * MAX_BODY_BYTES
    assert ask(gateway.address, body).code == 200


def test_bodies_that_come_slowly_make_room_for_others(server: Server, gateway: Gateway) -> None:
    part = post(INFER, SPACES)[: -MAX_BODY_BYTES // 16]
    large = binary_body("echo", np.zeros((1, MEGABYTE), np.float32))
    with grpc_caller(server.target):
        slow = [RawClient(gateway.address) for _ in range(12)]
        for client in slow:
            client.send(part)
        end_s = time.monotonic() + ANSWER_S
        while ask(gateway.address, large).code != 200:
            assert time.monotonic() < end_s, "slow bodies keep all others out"
        answers = [client for client in slow if 429 in codes_so_far(client)]
        for client in slow:
            client.socket.close()

    assert answers


def codes_so_far(client: RawClient) -> list[int]:
    client.socket.settimeout(0.01)
    try:
        return [client.answer().code]
    except TimeoutError:
        return []


# Framing


def one_tensor(**fields: object) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], **fields}
    return json.dumps({"inputs": [tensor]}).encode()


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: a\r\n"
FRAMINGS = {
    "both lengths": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, turned": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n" + SMUGGLED,
    "same length twice": HEAD + b"Content-Length: 36\r\nContent-Length: 36\r\n\r\n" + SMUGGLED,
    "list of lengths": HEAD + b"Content-Length: 0, 36\r\n\r\n" + SMUGGLED,
    "signed length": HEAD + b"Content-Length: +36\r\n\r\n" + SMUGGLED,
    "length in hex": HEAD + b"Content-Length: 0x24\r\n\r\n" + SMUGGLED,
    "bare LF": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + SMUGGLED,
    "bare LF behind a header": HEAD + b"X: a\nContent-Length: 36\r\n\r\n" + SMUGGLED,
    "folded header": HEAD + b"Content-Length:\r\n 36\r\n\r\n" + SMUGGLED,
    "space before a colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding in front": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding behind": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding twice": HEAD + 2 * b"Transfer-Encoding: chunked\r\n" + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunk of no number": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + SMUGGLED,
    "chunk of 2^64": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + SMUGGLED,
    "chunk with a bare LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\n\n" + SMUGGLED,
    "NUL in a header": HEAD + b"X: a\0b\r\n\r\n" + SMUGGLED,
    "NUL in a name": HEAD + b"X\0: a\r\n\r\n" + SMUGGLED,
    "upgrade with a body": HEAD
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 36\r\n\r\n"
    + SMUGGLED,
    "upgrade with chunks": HEAD
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
}


@pytest.mark.parametrize("data", FRAMINGS.values(), ids=FRAMINGS)
def test_request_of_two_readings_is_refused_and_the_connection_closed(
    unharmed: Gateway, data: bytes
) -> None:
    for split in (len(data), data.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 1):
        with RawClient(unharmed.address) as client:
            client.send(data[:split])
            if split < len(data):
                time.sleep(0.02)
                client.send(data[split:])

            refused(client.answer(), 400, 501)
            # Nothing behind it is read as a request.
            assert client.wait_for_end() == b""


def test_trailers_are_no_headers(unharmed: Gateway) -> None:
    body = in_chunks(INFER, AFFINE)[:-2] + b"Inference-Header-Content-Length: 1\r\n\r\n"

    assert ask(unharmed.address, body).code == 200


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"1;" + b"a" * 1000 + b"\r\n \r\n", id="extensions"),
        pytest.param(b"1" + b";a=b" * 250 + b"\r\n \r\n", id="many extensions"),
    ],
)
def test_chunks_that_are_mostly_framing_are_refused(unharmed: Gateway, chunk: bytes) -> None:
    with RawClient(unharmed.address) as client:
        client.send(request("POST", INFER, CHUNKED) + chunk * 10_000)

        refused(client.answer(), 400)


def test_chunks_of_one_byte_are_taken(unharmed: Gateway) -> None:
    data = in_chunks(INFER, *(bytes([byte]) for byte in AFFINE + SPACES[:50_000]))

    assert ask(unharmed.address, data).code == 200


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(get("/v2", "X: " + "a" * MEGABYTE), id="one"),
        pytest.param(get("/v2", *(f"X{i}: {'a' * 100}" for i in range(3000))), id="many"),
        pytest.param(get("/v2", *("X: a" for _ in range(300))), id="small ones"),
        pytest.param(get("/v2/" + "a" * MEGABYTE), id="path"),
        pytest.param(get("/v2?" + "a" * MEGABYTE), id="query"),
        pytest.param(b"A" * MEGABYTE, id="method"),
    ],
)
def test_headers_over_the_limit_are_refused(unharmed: Gateway, data: bytes) -> None:
    with RawClient(unharmed.address) as client:
        client.send(data)

        refused(client.answer(), 431, 400)
        assert client.wait_for_end() == b""


# Other protocols, odd paths


@pytest.mark.parametrize(
    ("data", "codes"),
    [
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,), id="HTTP/2"),
        pytest.param(b"GET /v2 HTTP/3.0\r\n\r\n", (400,), id="HTTP/3"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", (400,), id="TLS"),
        pytest.param(b"\0" * 100, (400,), id="zeros"),
        pytest.param(b"BREW /v2 HTTP/1.1\r\n\r\n", (400,), id="unknown method"),
        pytest.param(request("DELETE", "/v2"), (405,), id="other method"),
        pytest.param(request("TRACE", "/v2"), (405,), id="TRACE"),
        pytest.param(request("CONNECT", "example.org:80"), (400,), id="CONNECT"),
        pytest.param(request("OPTIONS", "*"), (400, 404, 405), id="OPTIONS"),
        pytest.param(get("/v2/models/%00%0a%1b[31m/infer"), (404, 405), id="control characters"),
        pytest.param(get("/v2/models/%ff%fe"), (400, 404), id="no UTF-8"),
        pytest.param(get("/v2/models/\xff"), (400,), id="bytes"),
        pytest.param(get("/v2/models/%ed%a0%80"), (400, 404), id="surrogate"),
        pytest.param(get("/v2/models/" + "../" * 50 + "etc/passwd"), (404,), id="dots"),
        pytest.param(get("/static/%2e%2e/%2e%2e/settings.py"), (404,), id="encoded dots"),
        pytest.param(get("/v2/models/affine/versions/%0d%0aX:a"), (400, 404), id="CRLF"),
        pytest.param(get("//v2"), (400, 404), id="two slashes"),
        pytest.param(post(INFER, AFFINE, "X-Request-Timeout: nan"), (400,), id="timeout"),
        pytest.param(post(INFER, AFFINE, "X-Request-Timeout: -1"), (400,), id="negative timeout"),
        pytest.param(post(INFER, AFFINE, "Authorization: \xff"), (401,), id="token"),
        pytest.param(
            post(INFER, AFFINE, "Inference-Header-Content-Length: \xb2"), (400,), id="header length"
        ),
    ],
)
def test_request_that_is_none_of_ours_is_refused(
    unharmed: Gateway, data: bytes, codes: tuple[int, ...]
) -> None:
    refused(ask(unharmed.address, data), *codes)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /v2 HTTP/1.0\r\n\r\n", id="HTTP/1.0"),
        pytest.param(b"GET /v2\r\n\r\n", id="HTTP/0.9"),
        pytest.param(get("/v2", "Connection: Upgrade", "Upgrade: websocket"), id="websocket"),
        pytest.param(get("/v2", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), id="h2c"),
        pytest.param(get("/v2", CLOSE) + get("/v2"), id="bytes behind the last request"),
    ],
)
def test_older_and_upgraded_requests_are_answered_once(unharmed: Gateway, data: bytes) -> None:
    with RawClient(unharmed.address) as client:
        client.send(data)

        assert client.answer().code == 200
        assert client.wait_for_end() == b""


@pytest.mark.parametrize("host", ["[", "a b", "\xff", "a" * 10_000, "@:/?#"])
@pytest.mark.parametrize("path", ["/v2/", "/v2", "/", "/docs/", "/static"])
def test_host_header_is_never_an_error_of_the_gateway(
    unharmed: Gateway, path: str, host: str
) -> None:
    data = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")

    assert ask(unharmed.address, data).code < 500


# JSON

INPUTS = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "no UTF-8": b'{"id": "\xff"}',
    "100,000 brackets": b"[" * 100_000,
    "100,000 closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "100,000 brackets and NaN": b'{"a": NaN, "b":' + b"[" * 100_000,
    "million brackets": b'{"inputs": [' + b"[]," * 1_000_000 + b"0]}",
    "million objects": b'{"inputs": [' + b"{}," * 1_000_000 + b"0]}",
    "million keys": json.dumps({f"k{i}": 0 for i in range(300_000)}).encode(),
    "million parameters": b'{"inputs": [], "parameters": {'
    + b",".join(b'"%d": [1]' % i for i in range(100_000))
    + b"}}",
    "lone surrogate": b'{"id": "\\ud800", "inputs": []}',
    "lone surrogate and NaN": b'{"id": "\\ud800", "parameters": {"a": NaN}, "inputs": []}',
    "surrogate as a key": b'{"\\ud800": NaN}',
    "surrogate in UTF-8 and NaN": (
        b'{"id": "\xed\xa0\x80", "parameters": {"a": NaN}, "inputs": []}'
    ),
    "number of a million digits": one_tensor(data=[]).replace(b"[]", b"[" + b"9" * 10**6 + b"]"),
    "that and NaN": one_tensor(data=[]).replace(b"[]", b"[NaN, " + b"9" * 10**6 + b"]"),
    "1e999": one_tensor(datatype="INT64").replace(b'"shape"', b'"data": [1e999], "shape"'),
    "deep datatype": one_tensor(data=[1]).replace(b'"FP32"', b"[" * 1000 + b"]" * 1000),
    "deep shape": one_tensor(data=[1]).replace(b"[1, 4]", b"[" + b"[" * 1000 + b"]" * 1000 + b"]"),
    "deep size": one_tensor(parameters={"binary_data_size": 0}).replace(
        b'size": 0', b'size": ' + b"[" * 1000 + b"]" * 1000
    ),
    "million axes": one_tensor(data=[1], shape=[2**62] * 1_000_000),
    "40 axes": one_tensor(data=[1], shape=[2**63 - 1] * 40),
    "shape that overflows": one_tensor(data=[1, 2, 3, 4], shape=[2**62, 4]),
    "axis of 2^64": one_tensor(data=[1], shape=[2**64]),
    "negative axis": one_tensor(data=[1], shape=[-1]),
    "axis of no rows": one_tensor(data=[], shape=[0, 4]),
    "ragged": one_tensor(data=[[1, 2], [3]]),
    "ragged deep down": one_tensor(data=[[[1], [2]], [[3], 4]]),
    "500 axes of data": one_tensor(data=[5]).replace(b"[5]", b"[" * 500 + b"5" + b"]" * 500),
    "strings": one_tensor(data=["1", "2", "3", "4"]),
    "one long string": one_tensor(data=["a" * 7 * MEGABYTE] + [1] * 10_000),
    "objects": one_tensor(data=[{}, {}, {}, {}]),
    "nulls": one_tensor(data=[None] * 4),
    "booleans": one_tensor(data=[[True, False, True, False]]),
    "mixed": one_tensor(data=[[1, True, 2.5, 3]]),
    "number for BYTES": one_tensor(datatype="BYTES", data=[1]),
    "long name": one_tensor(name="n" * 7 * MEGABYTE, data=[1, 2, 3, 4]),
    "no data": one_tensor(),
    "unknown field": one_tensor(data=[1], **{"x" * MEGABYTE: 1}),
}


@pytest.mark.parametrize("body", INPUTS.values(), ids=INPUTS)
def test_json_that_is_no_request_is_refused(unharmed: Gateway, body: bytes) -> None:
    before = unharmed.memory_bytes()

    refused(ask(unharmed.address, post(INFER, body)), 400, 413)

    assert unharmed.memory_bytes() - before < 400 * MEGABYTE


def test_keys_given_twice_and_odd_numbers_are_read(unharmed: Gateway) -> None:
    body = b'{"id": "a", "id": "b", "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32",'
    body += b'"data": [NaN, -Infinity, 1e-999, 0.5]}]}'

    content = json.loads(ask(unharmed.address, post(INFER, body)).body)

    assert content["id"] == "b"
    np.testing.assert_array_equal(content["outputs"][0]["data"], [np.nan, -np.inf, 1, 2])


def test_long_strings_go_through(unharmed: Gateway) -> None:
    text = "ä" * (3 * MEGABYTE)
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": [text]}

    answer = ask(
        unharmed.address,
        post(
            "/v2/models/words/infer", json.dumps({"inputs": [tensor]}, ensure_ascii=False).encode()
        ),
    )

    assert answer.json["outputs"][0]["data"] == [text]


def test_large_json_keeps_no_other_caller_waiting_for_long(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Parsing and writing hold the interpreter's lock, and nothing else keeps callers waiting."""
    values = json.dumps(np.random.default_rng(7).random(3_000_000).round(15).tolist())
    tensor = b'{"name": "x", "datatype": "FP32", "shape": [1, 3000000], "data": %b}'
    body = b'{"inputs": [' + tensor % values.encode() + b"]}"
    assert len(body) > 50 * MEGABYTE
    folder = tmp_path_factory.mktemp("large")
    waits_s: list[float] = []
    over = threading.Event()

    def look(address: str) -> None:
        with RawClient(address) as client:
            while not over.is_set():
                started_s = time.monotonic()
                client.send(get("/v2/health/live"))
                assert client.answer().code == 200
                waits_s.append(time.monotonic() - started_s)

    started_s = time.monotonic()
    json.loads(body)
    usual_s = time.monotonic() - started_s
    with (
        running_gateway(server.target, folder, "--max-body-bytes", str(64 * MEGABYTE)) as gateway,
        grpc_caller(server.target),
        ThreadPoolExecutor(1) as pool,
    ):
        looking = pool.submit(look, gateway.address)
        answer = ask(gateway.address, post("/v2/models/echo/infer", body))
        over.set()
        looking.result()

    assert answer.code == 200
    assert max(waits_s) < 5 + 5 * usual_s
