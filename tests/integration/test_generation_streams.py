"""Answers of encoder-decoders as streams of tokens, over the wire."""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.helpers.waiting import wait_until
from tests.integration.generation import LISTENED, Stream, asking, recorded, rows_left
from tests.integration.harness import Client, Server, arrays, tensor
from weir.protocol import inference_pb2 as pb


@pytest.fixture
def client(generating: Server) -> Iterator[Client]:
    with Client(generating.target) as client:
        yield client


@pytest.mark.parametrize("name", ["pair", "plain"])
def test_stream_sends_each_token_as_it_is_chosen_and_then_the_end(
    client: Client, encoder_decoders: Path, name: str
) -> None:
    tokens, lengths, wanted = recorded(encoder_decoders, name)
    row = max(range(len(wanted)), key=lambda each: len(wanted[each]))
    source = tokens[row, : lengths[row]].tolist()
    unary = client.infer(name, tensor("tokens", np.array([source])))

    with Stream(client) as stream:
        stream.ask(name, source, "one")
        stream.finish()

    told = stream.answers["one"]
    assert told.tokens == wanted[row] == unary["output_tokens"][0].tolist()
    assert told.finals == [False] * len(wanted[row]) + [True]
    assert told.score == pytest.approx(float(unary["scores"][0]), abs=1e-5)
    assert stream.call.code() is grpc.StatusCode.OK


def test_requests_of_one_stream_are_answered_concurrently(
    client: Client, encoder_decoders: Path
) -> None:
    tokens, lengths, wanted = recorded(encoder_decoders, "pair")
    rows = range(len(wanted))

    with Stream(client) as stream:
        for row in rows:
            stream.ask("pair", tokens[row, : lengths[row]].tolist(), str(row))
        stream.finish()

    assert [stream.answers[str(row)].tokens for row in rows] == wanted


def test_short_answer_overtakes_an_endless_one(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [9], "endless")
        stream.read(LISTENED)
        stream.ask("endless", [5, 6, 7], "short")

        short = stream.read_until_ended("short")

    assert short.tokens == [4, 4] and short.finals == [False, False, True]
    assert (
        set(stream.answers["endless"].tokens) == {4}
        and True not in stream.answers["endless"].finals
    )


@pytest.mark.parametrize(
    "parameters",
    [{"beam_width": 3}, {"beam_width": 2, "length_power": 0.0}],
    ids=["beam", "short answers"],
)
def test_beam_is_answered_in_one_message(client: Client, parameters: dict[str, float]) -> None:
    message = pb.ModelInferRequest.FromString(asking("pair", [4, 5, 6], "beam", **parameters))
    unary = arrays(client.send(message).result())

    with Stream(client) as stream:
        stream.ask("pair", [4, 5, 6], "beam", **parameters)
        stream.finish()

    assert stream.answers["beam"].finals == [True]
    assert stream.answers["beam"].tokens == unary["output_tokens"][0].tolist()


def test_equal_seeds_sample_equal_tokens_beside_other_requests(client: Client) -> None:
    with Stream(client) as stream:
        for number in range(6):
            seed = 7 if number < 3 else number
            stream.ask("pair", [4, 5, 6], str(number), seed=seed, temperature=3.0)
        stream.finish()

    told = [tuple(stream.answers[str(number)].tokens) for number in range(6)]
    assert len(set(told[:3])) == 1 and len(set(told)) > 2


def test_max_tokens_cut_an_answer_off(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [9], "cut", max_tokens=7)
        stream.finish()

    assert stream.answers["cut"].tokens == [4] * 7


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_rows_of_a_stream_that_breaks_off_are_freed(
    generating: Server, client: Client, how: str
) -> None:
    generating.wait_for_metric(0, "weir_generation_active_rows", model="endless")
    before = rows_left(generating)
    # On a busy machine the second request may be read only after the deadline.
    requests = 1 if how == "deadline" else 3

    # Within a longer deadline a slow client may leave more tokens unread than the server allows.
    with Stream(client, timeout=2.0 if how == "deadline" else 30.0) as stream:
        for number in range(requests):
            stream.ask("endless", [9, number + 1], str(number))
        if how == "cancelled":
            stream.read(LISTENED)
            generating.wait_for_metric(requests, "weir_generation_active_rows", model="endless")
            stream.call.cancel()
        else:
            # Not half-closed: the server, which may notice the deadline before the client does,
            # would end a half-closed stream with OK after the row's error.
            with pytest.raises(grpc.RpcError):
                stream.read(sys.maxsize)
            assert stream.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    generating.wait_for_metric(0, "weir_generation_active_rows", model="endless")
    wait_until(lambda: rows_left(generating) == before + requests, "the rows have left")


def test_late_request_ends_and_its_stream_goes_on(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [9], "late", timeout=2_000_000)
        late = stream.read_until_ended("late")
        stream.ask("endless", [5, 6, 7], "next")
        stream.finish()

    assert late.status == "DEADLINE_EXCEEDED" and late.tokens
    assert stream.answers["next"].tokens == [4, 4]


def test_refused_request_is_reported_and_its_stream_goes_on(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [99], "bad")
        stream.ask("endless", [5], "wide", beam_width=99)
        stream.ask("endless", [5, 6], "good")
        stream.finish()

    assert stream.answers["bad"].status == stream.answers["wide"].status == "INVALID_ARGUMENT"
    assert "beam_width: expected at most 4" in stream.answers["wide"].error
    assert stream.answers["good"].tokens == [4]
