"""Scrapes of the servers' metrics for the page."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from weir.client.credentials import Tls
from weir.client.results import ServerInfo
from weir.gateway import metrics_source
from weir.gateway.metrics_source import MetricsSource, ScrapeError, counts, fetch, metrics_urls
from weir.gateway.settings import GatewaySettings

BOUNDS = [0.001, 0.01, 0.1]
HERE = "127.0.0.1:8002"
SECRET = "Bearer secret"  # noqa: S105 - made up


def info(metrics_address: str = HERE, *, shares_port: bool = False) -> ServerInfo:
    return ServerInfo(
        version="1",
        grpcio="1",
        onnxruntime="1",
        provider="cpu",
        transport="completion-queue",
        transport_problem="",
        metrics_address=metrics_address,
        process_id=1,
        started=datetime.now(UTC),
        shares_port=shares_port,
    )


def page(model: str = "lenet5", ok: int = 3) -> str:
    """A metrics page, written by Prometheus's own library."""
    registry = CollectorRegistry()
    of_version = ["model", "version"]
    requests = Counter("weir_requests", "-", [*of_version, "status"], registry=registry)
    requests.labels(model, "1", "OK").inc(ok)
    requests.labels("", "", "NOT_FOUND").inc(2)
    failures = Counter("weir_request_failures", "-", [*of_version, "reason"], registry=registry)
    failures.labels("", "", "unknown_model").inc(2)
    seconds = Histogram(
        "weir_request_seconds", "-", of_version, buckets=BOUNDS, registry=registry
    ).labels(model, "1")
    for value in (0.0005, 0.005, 0.005, 5):
        seconds.observe(value)
    Gauge("weir_queue_rows", "-", of_version, registry=registry).labels(model, "1").set(7)
    Gauge("weir_queue_requests", "-", of_version, registry=registry).labels(model, "1").set(9)
    Gauge("process_start_time_seconds", "-", registry=registry).set(1700)
    return generate_latest(registry).decode()


@dataclass
class FakeFetch:
    """Answers with a page, and records what was asked for."""

    text: str = field(default_factory=page)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    may_answer: asyncio.Event | None = None

    async def __call__(self, url: str, authorization: str | None, security: Any) -> str:
        self.asked.append((url, authorization))
        if self.may_answer is not None:
            await self.may_answer.wait()
        return self.text


def test_counts_are_by_model_and_version() -> None:
    found = counts(page())

    assert found["started_s"] == 1700
    by_name = {entry["model"]: entry for entry in found["models"]}
    assert by_name["lenet5"] == {
        "model": "lenet5",
        "version": "1",
        "requests": {"OK": 3},
        "latency": {"bounds": BOUNDS, "counts": [1, 3, 3, 4], "sum": 5.0105, "count": 4},
        "queue_rows": 7,
    }
    assert by_name[""]["failures"] == {"unknown_model": 2}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "up 1\n",
        "<html>Not here</html>",
        'weir_requests_total{model="a',
        'weir_requests_total{model="a",version="1",status="OK"} many\n',
        'weir_request_seconds_bucket{model="a",version="1",le="low"} 1\n',
    ],
    ids=["empty", "another's", "html", "cut", "no number", "no bound"],
)
def test_other_metrics_are_named(text: str) -> None:
    with pytest.raises(ScrapeError, match="expected metrics"):
        counts(text)


@pytest.mark.parametrize(
    ("target", "tls", "told", "url"),
    [
        ("127.0.0.1:8001", None, HERE, "http://127.0.0.1:8002/metrics"),
        ("gpu-3:8001", None, "0.0.0.0:8002", "http://gpu-3:8002/metrics"),
        ("gpu-3:8001", True, "0.0.0.0:8002", "https://gpu-3:8002/metrics"),
        ("gpu-3:8001", None, "[::]:8002", "http://gpu-3:8002/metrics"),
        ("[::1]:8001", None, "[::]:8002", "http://[::1]:8002/metrics"),
        ("ipv4:10.0.0.3:8001", None, "0.0.0.0:8002", "http://10.0.0.3:8002/metrics"),
        ("unix:/run/weir.sock", None, "0.0.0.0:8002", "http://127.0.0.1:8002/metrics"),
        ("gpu-3:8001", None, "10.0.0.3:8002", "http://10.0.0.3:8002/metrics"),
    ],
)
def test_the_server_tells_where_its_metrics_are(
    target: str,
    tls: bool | None,  # noqa: FBT001 - parametrized
    told: str,
    url: str,
) -> None:
    assert metrics_urls(GatewaySettings(target=target, tls=tls), info(told)) == [url]


def test_the_setting_goes_first() -> None:
    settings = GatewaySettings(metrics_url="http://a:1, https://b:2/own?x=1")

    assert metrics_urls(settings, info()) == ["http://a:1/metrics", "https://b:2/own?x=1"]


@pytest.mark.parametrize(
    ("settings", "told", "text"),
    [
        (GatewaySettings(target="a:1,b:1"), HERE, "several servers: .*--metrics-url"),
        (GatewaySettings(target="dns:///a:1"), HERE, "several servers: .*--metrics-url"),
        (GatewaySettings(), "", "tells no address of its metrics: .*--metrics-url"),
        (GatewaySettings(metrics_url="http://a:99999"), HERE, "metrics_url: expected http"),
        (GatewaySettings(metrics_url="http://a:1,b:2"), HERE, "metrics_url: expected http"),
    ],
    ids=["list", "name", "not told", "no port", "no scheme"],
)
def test_an_unknown_place_is_said_in_the_answer(
    settings: GatewaySettings, told: str, text: str
) -> None:
    answer = asyncio.run(MetricsSource(settings, fetch=FakeFetch()).read(info(told), None))

    assert answer["servers"] == []
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(answer["problem"])


def test_each_server_is_scraped_and_one_that_fails_harms_no_other() -> None:
    async def half(url: str, authorization: str | None, security: Any) -> str:
        if "a:1" in url:
            raise ScrapeError("cannot be reached")
        return page()

    settings = GatewaySettings(metrics_url="http://a:1,http://b:2")
    answer = asyncio.run(MetricsSource(settings, fetch=half).read(info(), None))

    failed, good = answer["servers"]
    assert failed["problem"] == "http://a:1/metrics: cannot be reached"
    assert good["problem"] == "" and good["models"]


def test_a_shared_port_is_said_beside_the_counts() -> None:
    source = MetricsSource(GatewaySettings(), fetch=FakeFetch())

    answer = asyncio.run(source.read(info(shares_port=True), None))

    assert "only the one that answered is shown" in answer["problem"]
    assert answer["servers"][0]["models"]


def test_callers_with_one_token_share_a_scrape_within_a_second() -> None:
    now_s = 0.0
    fake = FakeFetch()
    source = MetricsSource(GatewaySettings(), clock=lambda: now_s, fetch=fake)

    async def read() -> None:
        nonlocal now_s
        one, two = await asyncio.gather(source.read(info(), "a"), source.read(info(), "a"))
        assert one == two
        now_s = 0.99
        assert await source.read(info(), "a") == one
        assert len(fake.asked) == 1
        await source.read(info(), "b")
        now_s = 1.0
        await source.read(info(), "a")

    asyncio.run(read())

    assert [authorization for _, authorization in fake.asked] == ["a", "b", "a"]


def test_few_callers_are_remembered() -> None:
    source = MetricsSource(GatewaySettings(), fetch=FakeFetch())

    async def read() -> None:
        for number in range(100):
            await source.read(info(), f"Bearer {number}")

    asyncio.run(read())

    assert len(source._shared) == metrics_source._MAX_CALLERS


def test_a_caller_that_leaves_takes_no_scrape_away() -> None:
    async def read() -> dict[str, Any]:
        fake = FakeFetch(may_answer=asyncio.Event())
        source = MetricsSource(GatewaySettings(), fetch=fake)
        first = asyncio.create_task(source.read(info(), None))
        await asyncio.sleep(0)
        second = asyncio.create_task(source.read(info(), None))
        await asyncio.sleep(0)
        first.cancel()
        assert fake.may_answer is not None
        fake.may_answer.set()
        return await second

    assert asyncio.run(read())["servers"][0]["models"]


@pytest.mark.parametrize(
    ("metrics_url", "tls", "sent"),
    [
        ("http://127.0.0.1:8002", None, SECRET),
        ("http://localhost:8002", None, SECRET),
        ("http://[::1]:8002", None, SECRET),
        ("https://gpu-3:8002", None, SECRET),
        ("http://gpu-3:8002", None, None),
        ("http://gpu-3", True, None),
        ("http://gpu-3:8002", False, SECRET),
    ],
)
def test_a_token_goes_to_another_machine_only_in_tls(
    metrics_url: str,
    tls: bool | None,  # noqa: FBT001 - parametrized
    sent: str | None,
) -> None:
    fake = FakeFetch()
    settings = GatewaySettings(metrics_url=metrics_url, tls=tls)

    asyncio.run(MetricsSource(settings, fetch=fake).read(info(), SECRET))

    assert fake.asked[0][1] == sent


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/metrics"


def answering(*parts: bytes, heads: list[bytes] | None = None) -> Serve:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        for part in parts:
            writer.write(part)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    return handle


def test_a_page_is_fetched_with_the_token() -> None:
    heads: list[bytes] = []
    handle = answering(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n", b"a 1\n", b"b 2\n", heads=heads)

    async def read() -> str:
        async with serving(handle) as url:
            return await fetch(url, SECRET)

    assert asyncio.run(read()) == "a 1\nb 2\n"
    assert heads[0].startswith(b"GET /metrics HTTP/1.0\r\n")
    assert b"\r\nAuthorization: Bearer secret\r\n" in heads[0]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", r"expects a token \(401\)"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", r"the token may not read .*\(403\)"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "expected status 200, got 302"),
        (b"SSH-2.0-OpenSSH\r\n", "expected an answer of HTTP"),
        (b"", "expected an answer of HTTP"),
    ],
    ids=["401", "403", "302", "ssh", "nothing"],
)
def test_a_refused_scrape_is_said_in_words(answer: bytes, text: str) -> None:
    async def read() -> None:
        async with serving(answering(answer)) as url:
            await fetch(url, None)

    with pytest.raises(ScrapeError, match=text):
        asyncio.run(read())


def test_a_page_has_a_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_source, "MAX_BYTES", 1 << 20)
    handle = answering(b"HTTP/1.0 200 OK\r\n\r\n", bytes(4 << 20))

    async def read() -> None:
        async with serving(handle) as url:
            await fetch(url, None)

    with pytest.raises(ScrapeError, match="expected at most 1 MiB of metrics, got more"):
        asyncio.run(read())


def test_a_silent_server_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_source, "_TIMEOUT_S", 0.1)

    async def read() -> None:
        is_over = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await is_over.wait()
            writer.close()

        async with serving(silent) as url:
            try:
                await fetch(url, None)
            finally:
                is_over.set()

    with pytest.raises(ScrapeError, match=r"no answer within 0\.1 s"):
        asyncio.run(read())


def test_a_server_that_is_gone_is_said_in_words() -> None:
    async def read() -> None:
        async with serving(answering()) as url:
            pass
        await fetch(url, None)

    with pytest.raises(ScrapeError, match="cannot be reached"):
        asyncio.run(read())


@pytest.mark.parametrize("trusted", ["own", "another"])
def test_tls_is_that_of_the_servers(tmp_path: Path, trusted: str) -> None:
    authority, other = trustme.CA(), trustme.CA()
    trusts = trusted == "own"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("weir.example").configure_cert(context)
    ca = tmp_path / "ca.pem"
    (authority if trusts else other).cert_pem.write_to_path(str(ca))
    handle = answering(b"HTTP/1.0 200 OK\r\n\r\n", page().encode())

    async def read() -> dict[str, Any]:
        async with serving(handle, context) as url:
            tls = Tls(ca=ca, server_name="weir.example")
            settings = GatewaySettings(metrics_url=url, tls=tls)
            return await MetricsSource(settings).read(info(), None)

    server = asyncio.run(read())["servers"][0]

    assert bool(server["models"]) == trusts
    assert ("the TLS handshake failed" in server["problem"]) != trusts
