"""`Generate` calls that end early: their rows are freed, and no other call is affected."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.helpers.waiting import wait_until
from tests.integration.generation import LISTENED, generate, rows_left
from tests.integration.harness import (
    ANSWER_S,
    SERVICE,
    TASKS,
    Client,
    Server,
    request,
    running,
    tensor,
)

ENDLESS = "z"


@pytest.fixture
def client(generating: Server) -> Iterator[Client]:
    with Client(generating.target) as client:
        yield client


def text_of(call: Any) -> str:
    """The result in the last message."""
    *_, last = call
    return str(last.result.hypotheses[0].text)


def nothing_until(ended: threading.Event) -> Iterator[bytes]:
    """The messages of a client that opens a stream and sends none."""
    ended.wait(2 * ANSWER_S)
    yield from ()


def around(rested: threading.Event, message: bytes) -> Iterator[bytes]:
    """The messages of a client that sends one, and rests before it sends another."""
    yield message
    rested.wait(2 * ANSWER_S)
    yield message


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_client_that_leaves_during_an_answer_frees_its_row_and_harms_no_other(
    generating: Server, client: Client, how: str
) -> None:
    generating.wait_for_metric(0, "weir_generation_active_rows", model="endless")
    before = rows_left(generating)
    # Within a longer deadline a slow client may leave more tokens unread than the server allows.
    leaves = generate(client, ENDLESS, timeout=2.0 if how == "deadline" else None)
    for _ in range(LISTENED if how == "cancelled" else 1):
        assert next(leaves).token.text == "A"

    beside = generate(client, "abc")
    if how == "cancelled":
        leaves.cancel()
    with pytest.raises(grpc.RpcError):
        list(leaves)

    assert text_of(beside) == "AA"
    generating.wait_for_metric(0, "weir_generation_active_rows", model="endless")
    wait_until(lambda: rows_left(generating) == before + 1, "one row has left")
    assert leaves.code().name == {"cancelled": "CANCELLED", "deadline": "DEADLINE_EXCEEDED"}[how]


def test_beam_of_no_width_is_refused_by_name(client: Client) -> None:
    call = generate(client, "abc", beam={})

    with pytest.raises(grpc.RpcError):
        list(call)

    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "beam.width: expected 1 or more, got 0" in call.details()


def test_stopping_server_finishes_the_answers_that_fit_into_its_grace(
    encoder_decoders: Path, transport: str, tmp_path: Path
) -> None:
    flags = ("--transport", transport, "--grace-s", "3")
    with (
        running(encoder_decoders, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
    ):
        silence = threading.Event()
        open_stream: Any = client.channel.stream_stream(f"/{TASKS}/Generate")
        silent = open_stream(nothing_until(silence))
        finishes = generate(client, "az", max_tokens=500)
        endless = generate(client, ENDLESS)
        for call in (finishes, endless):
            assert next(call).token.text == "A"

        server.process.send_signal(signal.SIGTERM)

        assert text_of(finishes) == "A" * 500
        for call in (endless, silent):
            with pytest.raises(grpc.RpcError):
                list(call)
            assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert server.ended() == 0
        silence.set()
        assert "Traceback" not in server.log()


def test_stream_that_never_sends_is_ended_by_the_server(
    encoder_decoders: Path, transport: str, tmp_path: Path
) -> None:
    """A stream that takes many requests may rest between two of them."""
    flags = ("--transport", transport, "--default-deadline-s", "0.5")
    with (
        running(encoder_decoders, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
    ):
        resting, spoken = threading.Event(), request("pair", tensor("tokens", np.array([[4]])))
        many: Any = client.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        stays = many(around(resting, spoken.SerializeToString()))
        never = threading.Event()
        open_stream: Any = client.channel.stream_stream(f"/{TASKS}/Generate")
        silent = open_stream(nothing_until(never))
        # A client's own deadline would end the stream in another way.
        gives_up = threading.Timer(ANSWER_S, silent.cancel)
        gives_up.start()

        with pytest.raises(grpc.RpcError):
            list(silent)
        gives_up.cancel()
        resting.set()

        assert silent.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "expected one message, none came within 0.5 s" in silent.details()
        assert len(list(stays)) > 1 and stays.code() is grpc.StatusCode.OK
        never.set()
