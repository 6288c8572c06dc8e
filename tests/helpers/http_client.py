"""A plain HTTP client: JSON requests, and server-sent events."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

ANSWER_S = 60.0
"""Limit of every answer: long enough for a busy machine."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to one request; names of headers are in lower case."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers["content-type"] == "application/json", self.headers
        return json.loads(self.body)


class HttpClient:
    """Requests to a server, each on a connection of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def connect(self) -> HTTPConnection:
        """A connection, for requests that `ask` cannot make."""
        return HTTPConnection(self.address, timeout=ANSWER_S)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        with closing(self.connect()) as connection:
            connection.request(method, path, body, sent)
            return received(connection.getresponse())

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """A GET."""
        return self.ask("GET", path, headers=headers)

    def post(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """A POST, see `ask`."""
        return self.ask("POST", path, body, headers)

    @contextmanager
    def stream(self, path: str, body: object) -> Iterator[Iterator[tuple[str, Any]]]:
        """The server-sent events of a POST, each as its name and data; hangs up at the end."""
        with closing(self.connect()) as connection:
            connection.request("POST", path, json.dumps(body).encode())
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield _events(response)


def received(response: HTTPResponse) -> HttpAnswer:
    """A response, read to its end."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return HttpAnswer(response.status, headers, response.read())


def _events(response: HTTPResponse) -> Iterator[tuple[str, Any]]:
    while first := response.readline():
        name, data, empty = first, response.readline(), response.readline()
        assert name.startswith(b"event: ") and data.startswith(b"data: ") and empty == b"\n"
        yield name[len(b"event: ") :].decode().strip(), json.loads(data[len(b"data: ") :])
