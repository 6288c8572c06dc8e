"""An encoder-decoder with more requests than it can decode: what is refused, and how soon."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration.generation import asking, generate, publish_endless
from tests.integration.harness import ANSWER_S, SERVICE, Client, Server, running

TOKENS = 40_000
"""Of an answer that takes a second or two."""
ENDLESS = 9
"""A source token."""
BEFORE = 16
"""Requests that wait. The machine may be several times faster later than when it was measured."""


@dataclass(frozen=True, slots=True)
class Occupied:
    """`endless` with one slot, which is in use for ever, and requests that wait for it.

    Attributes:
        answer_s: of an answer of `TOKENS` without others.
    """

    server: Server
    client: Client
    answer_s: float


@pytest.fixture(scope="module")
def occupied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Occupied]:
    models, log = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("log")
    publish_endless(models)
    with (
        running(models, Path(log, "log"), "--max-batch-rows", "1") as server,
        Client(server.target) as client,
        ExitStack() as stack,
    ):
        started_s = time.monotonic()
        assert infer(client, max_tokens=TOKENS).code() is grpc.StatusCode.OK
        answer_s = time.monotonic() - started_s
        for _ in range(BEFORE):
            stack.callback(infer(client).cancel)
        server.wait_for_metric(1, "weir_generation_active_rows", model="endless")
        yield Occupied(server, client, answer_s)


def infer(client: Client, timeout: float = ANSWER_S, **parameters: Any) -> Any:
    """Start a `ModelInfer` whose answer has no end, unless it has `max_tokens`."""
    method: Any = client.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    return method.future(asking("endless", [ENDLESS], **parameters), timeout=timeout)


def stream(client: Client, timeout: float, **parameters: Any) -> Any:
    """The same by `Generate`."""
    return generate(client, "z", timeout, **parameters)


@pytest.mark.parametrize("start", [infer, stream], ids=["ModelInfer", "Generate"])
def test_request_that_cannot_be_done_in_time_is_refused_at_once(
    occupied: Occupied, start: Any
) -> None:
    limit_s = occupied.answer_s
    started_s = time.monotonic()

    refused = start(occupied.client, limit_s, max_tokens=TOKENS)

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert time.monotonic() - started_s < limit_s
    assert "an answer is expected in" in refused.details()
    trailers = dict(refused.trailing_metadata())
    # Sixteen answers come first; it has the time of one.
    assert int(trailers["grpc-retry-pushback-ms"]) > 1000 * occupied.answer_s
