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
from tests.integration.harness import ANSWER_S, SERVICE, Client, running

TOKENS = 20_000
"""Of an answer that takes half a second or more."""
ENDLESS = 9
"""A source token."""
FLAGS = ("--max-batch-rows", "1", "--max-queue-rows", "100000")
WAITING_S, LIMIT_S = 40.0, 12.0
"""Of requests that wait, and of one that arrives after them; it goes before none of them."""


@dataclass(frozen=True, slots=True)
class Occupied:
    """`endless` with one slot, which is in use for ever.

    Attributes:
        calls: cancelled at the end.
    """

    client: Client
    calls: ExitStack

    def fill(self) -> None:
        """Queue requests until the server refuses them: by its measure of this moment."""
        refused, end_s = 0, time.monotonic() + ANSWER_S
        # A pause of the machine makes it refuse a few more than it does a moment later.
        while refused < 20:
            assert time.monotonic() < end_s, "it queues all"
            call = infer(self.client, WAITING_S)
            self.calls.callback(call.cancel)
            # Answered after the call, if that is refused.
            self.client.health()
            refused = refused + 1 if call.done() else 0


@pytest.fixture(scope="module")
def occupied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Occupied]:
    models, log = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("log")
    publish_endless(models)
    with (
        running(models, Path(log, "log"), *FLAGS) as server,
        Client(server.target) as client,
        ExitStack() as stack,
    ):
        assert infer(client, max_tokens=TOKENS).code() is grpc.StatusCode.OK
        stack.callback(infer(client, WAITING_S).cancel)
        server.wait_for_metric(1, "weir_generation_active_rows", model="endless")
        yield Occupied(client, stack)


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
    occupied.fill()
    started_s = time.monotonic()

    refused = start(occupied.client, LIMIT_S, max_tokens=TOKENS)

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert time.monotonic() - started_s < LIMIT_S
    assert "an answer is expected in" in refused.details()
    trailers = dict(refused.trailing_metadata())
    # What waits takes three times the time that it has.
    assert int(trailers["grpc-retry-pushback-ms"]) > 1000
