"""The servers' metrics for the page: scraped, and counted by model.

- The metrics are at the setting `metrics_url` (several with commas between), or at the address that
  the one server tells.
- A scrape carries the token of the caller, as Prometheus's does: a metrics port of a server with
  tokens wants one.
- Callers with the same token share a scrape, at most one in `MIN_INTERVAL_S`.
- A scrape that fails is no error of the answer: its text stands in the answer, for the page.
"""

import asyncio
import math
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from weir.client import balancing, proxies
from weir.client.credentials import Tls
from weir.client.results import ServerInfo
from weir.gateway.settings import GatewaySettings

MIN_INTERVAL_S = 1.0
MAX_BYTES = 32 << 20
_TIMEOUT_S = 5.0
# Each token that the servers know may hold one answer of some 10 KiB.
_MAX_CALLERS = 32
_DEFAULT_PATH = "/metrics"
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - an address that a server tells, not one to bind
_ADDRESS = re.compile(r"\[?(?P<host>[^\]]*?)\]?:(?P<port>\d+)")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_GIVE_URL = "start the gateway with --metrics-url"
_SHARED_PORT = (
    "several processes may share the server's port, and only the one that answered is shown: "
    f"{_GIVE_URL}, with commas between the addresses of all"
)

_COUNTERS = {
    "weir_input_tokens_total": "input_tokens",
    "weir_padded_tokens_total": "padded_tokens",
    "weir_generation_tokens_total": "generation_tokens",
    "weir_queue_rows": "queue_rows",
}
_HISTOGRAMS = {
    "weir_request_seconds": "latency",
    "weir_batch_rows": "batch_rows",
}
_BY_LABEL = {
    "weir_requests_total": ("requests", "status"),
    "weir_request_failures_total": ("failures", "reason"),
}
_STARTED = "process_start_time_seconds"
_WANTED = (*_COUNTERS, *_HISTOGRAMS, *_BY_LABEL, _STARTED)


class ScrapeError(Exception):
    """The metrics of a server cannot be read; the text is for the page."""


@dataclass(frozen=True, slots=True)
class _Security:
    """TLS of a scrape: the context, and the name that the certificate must have."""

    context: ssl.SSLContext
    server_name: str | None


class Fetch(Protocol):
    """Reads the text of a metrics page."""

    async def __call__(
        self, url: str, authorization: str | None, security: _Security | None
    ) -> str:
        """The text; ScrapeError if there is none."""


@dataclass(slots=True)
class _Shared:
    """The scrape that callers with the same token share."""

    began_s: float
    answer: "asyncio.Task[dict[str, Any]]"


@dataclass(slots=True)
class MetricsSource:
    """Scrapes for the viewers of the page; belongs to one event loop."""

    settings: GatewaySettings
    clock: Callable[[], float] = time.monotonic
    fetch: Fetch = field(default_factory=lambda: fetch)
    _shared: OrderedDict[str | None, _Shared] = field(default_factory=OrderedDict)
    _security: _Security | None = None

    async def read(self, info: ServerInfo, authorization: str | None) -> dict[str, Any]:
        """The counts of each server by model, and the time of the scrape.

        Args:
            info: of the server that answers; it tells where its metrics are.
            authorization: the header of the caller, who may read `info`.
        """
        now_s = self.clock()
        shared = self._shared.get(authorization)
        if shared is None or now_s - shared.began_s >= MIN_INTERVAL_S:
            # A task of its own: the caller that began it may leave before the others.
            task = asyncio.create_task(self._scrape(info, authorization))
            shared = self._shared[authorization] = _Shared(now_s, task)
            self._shared.move_to_end(authorization)
            while len(self._shared) > _MAX_CALLERS:
                self._shared.popitem(last=False)
        return await asyncio.shield(shared.answer)

    async def _scrape(self, info: ServerInfo, authorization: str | None) -> dict[str, Any]:
        try:
            urls = metrics_urls(self.settings, info)
        except ScrapeError as error:
            return {"time_s": time.time(), "problem": str(error), "servers": []}
        servers = await asyncio.gather(*(self._server(url, authorization) for url in urls))
        problem = _SHARED_PORT if info.shares_port and not self.settings.metrics_url else ""
        return {"time_s": time.time(), "problem": problem, "servers": servers}

    async def _server(self, url: str, authorization: str | None) -> dict[str, Any]:
        """The counts of one server, or the problem with them."""
        answer: dict[str, Any] = {"address": url, "problem": "", "started_s": None, "models": []}
        try:
            sent = authorization if _may_send_token(self.settings, url) else None
            text = await self.fetch(url, sent, self._security_of(url))
            # Some hundred lines a model: on a thread, the event loop goes on.
            answer |= await asyncio.to_thread(counts, text)
        except ScrapeError as error:
            answer["problem"] = f"{url}: {error}"
        return answer

    def _security_of(self, url: str) -> _Security | None:
        """The gateway's own TLS towards its servers; made once, as its channel's is."""
        if urlsplit(url).scheme != "https":
            return None
        if self._security is None:
            given = self.settings.tls
            self._security = _security(given if isinstance(given, Tls) else Tls())
        return self._security


def metrics_urls(settings: GatewaySettings, info: ServerInfo) -> list[str]:
    """Where the metrics of the servers are; ScrapeError if that is not known."""
    if settings.metrics_url:
        return [_with_path(url.strip()) for url in settings.metrics_url.split(",")]
    target, *others = balancing.addresses_of(settings.target)
    if others or target.lower().startswith("dns:"):
        raise ScrapeError(
            f"the gateway has several servers: {_GIVE_URL} http://HOST:PORT/metrics, with commas "
            "between those of the servers"
        )
    told = _ADDRESS.fullmatch(info.metrics_address)
    if told is None:
        raise ScrapeError(f"the server tells no address of its metrics: {_GIVE_URL}")
    host = told["host"]
    if host in _WILDCARDS:
        host = _host_of(target)
    scheme = "https" if settings.tls else "http"
    return [f"{scheme}://{f'[{host}]' if ':' in host else host}:{told['port']}{_DEFAULT_PATH}"]


def counts(text: str) -> dict[str, Any]:
    """The counts of a metrics page by model and version.

    Histograms keep the upper bounds of their buckets, without the infinite one, and all cumulative
    counts. Raises ScrapeError if the page is not one of a Weir server.
    """
    models: dict[tuple[str, str], dict[str, Any]] = {}
    started_s = None
    try:
        for sample in _samples(text):
            if sample.name == _STARTED:
                started_s = sample.value
            elif {"model", "version"} <= sample.labels.keys() and math.isfinite(sample.value):
                key = sample.labels["model"], sample.labels["version"]
                entry = models.setdefault(key, {"model": key[0], "version": key[1]})
                _count(entry, sample)
    except (ValueError, KeyError, IndexError) as error:  # of the parser
        raise ScrapeError("expected metrics in Prometheus's text format, got others") from error
    if started_s is None and not models:
        raise ScrapeError("expected metrics of a Weir server, got others")
    return {"started_s": started_s, "models": list(models.values())}


async def fetch(url: str, authorization: str | None, security: _Security | None = None) -> str:
    """GET a metrics page, within a time and a size; ScrapeError if it fails.

    HTTP/1.0: the answer then ends with its connection, and comes in one piece.
    """
    place = urlsplit(url)
    port = place.port or (443 if place.scheme == "https" else 80)
    tls: dict[str, Any] = {}
    if security is not None:
        tls = {"ssl": security.context, "server_hostname": security.server_name or place.hostname}
    head = [f"GET {place.path}{f'?{place.query}' if place.query else ''} HTTP/1.0"]
    head += [f"Host: {place.netloc.rpartition('@')[2]}", "Accept: text/plain"]
    if authorization is not None:
        head.append(f"Authorization: {authorization}")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(place.hostname, port, **tls)
            try:
                writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
                answer = await _read_all(reader)
            finally:
                writer.close()
    except TimeoutError as error:
        raise ScrapeError(f"no answer within {_TIMEOUT_S:g} s") from error
    except ssl.SSLError as error:
        raise ScrapeError(f"the TLS handshake failed: {error.reason or error}") from error
    # A host name that cannot be encoded is a ValueError.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScrapeError(f"cannot be reached ({reason})") from error
    return _body(answer)


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while chunk := await reader.read(1 << 16):
        answer += chunk
        if len(answer) > MAX_BYTES:
            raise ScrapeError(f"expected at most {MAX_BYTES >> 20} MiB of metrics, got more")
    return bytes(answer)


def _body(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = _STATUS_LINE.match(head)
    if status is None:
        raise ScrapeError("expected an answer of HTTP, got something else")
    if status[1] == b"401":
        raise ScrapeError("expects a token (401)")
    if status[1] == b"403":
        raise ScrapeError("the token may not read the metrics of all models (403)")
    if status[1] != b"200":
        raise ScrapeError(f"expected status 200, got {status[1].decode()}")
    return body.decode(errors="replace")


def _samples(text: str) -> Iterator[Sample]:
    """The samples that the page shows.

    All others are left out before they are parsed: the parser takes some 10 µs a line.
    """
    lines = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(_WANTED))
    for family in text_string_to_metric_families(lines):
        yield from family.samples


def _count(entry: dict[str, Any], sample: Sample) -> None:
    if name := _COUNTERS.get(sample.name):
        entry[name] = sample.value
    elif found := _BY_LABEL.get(sample.name):
        name, label = found
        entry.setdefault(name, {})[sample.labels.get(label, "")] = sample.value
    else:
        family, _, part = sample.name.rpartition("_")
        if name := _HISTOGRAMS.get(family):
            histogram = entry.setdefault(name, {"bounds": [], "counts": [], "sum": 0, "count": 0})
            _add_to_histogram(histogram, part, sample)


def _add_to_histogram(histogram: dict[str, Any], part: str, sample: Sample) -> None:
    """Add a line; the format lists buckets by their bounds, the infinite one last."""
    if part != "bucket":
        if part in {"sum", "count"}:
            histogram[part] = sample.value
        return
    bound = float(sample.labels.get("le", "inf"))
    if math.isfinite(bound):
        histogram["bounds"].append(bound)
    histogram["counts"].append(sample.value)


def _with_path(url: str) -> str:
    """The URL, with the usual path if it has none; ScrapeError if it is none."""
    try:
        place = urlsplit(url)
        is_url = place.scheme in {"http", "https"} and bool(place.hostname) and place.port != 0
    except ValueError:  # the port or an address in brackets
        is_url = False
    if not is_url:
        raise ScrapeError(f"metrics_url: expected http://HOST:PORT/metrics, got {url!r}")
    return url.rstrip("/") + _DEFAULT_PATH if place.path in {"", "/"} else url


def _host_of(target: str) -> str:
    """The host of a target of one server; this machine for a Unix socket."""
    found = _ADDRESS.fullmatch(target.removeprefix("ipv4:").removeprefix("ipv6:"))
    return "127.0.0.1" if found is None or target.startswith("unix") else found["host"]


def _may_send_token(settings: GatewaySettings, url: str) -> bool:
    """Whether a token may go there: not in plaintext to another machine, unless TLS is off."""
    place = urlsplit(url)
    is_here = proxies.is_loopback(place.netloc if place.port else f"{place.netloc}:80")
    return place.scheme == "https" or is_here or settings.tls is False


def _security(tls: Tls) -> _Security:
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        if tls.cert is not None and tls.key is not None:
            context.load_cert_chain(str(tls.cert), str(tls.key))
    except OSError as error:
        raise ScrapeError(f"the certificates cannot be read ({error})") from error
    return _Security(context, tls.server_name)
