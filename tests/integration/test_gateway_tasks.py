"""The task routes of the gateway: answers of `weir.Client`, as JSON and as server-sent events."""

import base64
import io
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import Any

import pytest
from PIL import Image

import weir
from tests.helpers.gateway import gateway as running_gateway
from tests.helpers.http_client import HttpClient
from tests.helpers.waiting import wait_until
from tests.integration.generation import LISTENED
from tests.integration.harness import ANSWER_S, Server

TRANSPORT = "completion-queue"
ENDLESS = "z"
"""`endless` has no end for a text with a z."""


@pytest.fixture(scope="module")
def server(serve_house: Any) -> Server:
    found: Server = serve_house(TRANSPORT)
    return found


@pytest.fixture(scope="module")
def speaker(serve_generating: Any) -> Server:
    """The server of the encoder-decoders."""
    found: Server = serve_generating(TRANSPORT)
    return found


@pytest.fixture(scope="module")
def gateway(server: Server) -> Iterator[HttpClient]:
    with running_gateway(server.target) as address:
        yield HttpClient(address)


@pytest.fixture(scope="module")
def generating_gateway(speaker: Server) -> Iterator[HttpClient]:
    with running_gateway(speaker.target) as address:
        yield HttpClient(address)


@pytest.fixture
def client(server: Server) -> Iterator[weir.Client]:
    with weir.Client(server.target, timeout_s=ANSWER_S) as client:
        yield client


@pytest.fixture
def generating_client(speaker: Server) -> Iterator[weir.Client]:
    with weir.Client(speaker.target, timeout_s=ANSWER_S) as client:
        yield client


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


PICTURES = [png((200, 30, 0)), png((0, 90, 30))]


def classes(found: Sequence[weir.Class]) -> list[dict[str, Any]]:
    return [{"label": each.label, "index": each.index, "probability": each.score} for each in found]


def form(
    fields: Sequence[tuple[str, bytes]], boundary: str = "x1x"
) -> tuple[bytes, dict[str, str]]:
    """A body of `multipart/form-data`, and its header."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in fields
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


def test_pictures_as_json_get_the_clients_answer(gateway: HttpClient, client: weir.Client) -> None:
    sent = [{"base64": base64.b64encode(each).decode()} for each in PICTURES]

    answer = gateway.post("/v1/models/colours:classify", {"pictures": sent, "top": 2})

    expected = client.classify("colours", PICTURES, top=2)
    assert answer.code == 200
    assert answer.json() == {
        "model": "colours",
        "version": "1",
        "results": [{"classes": classes(each)} for each in expected],
    }


def test_pictures_as_a_form_get_the_clients_answer(
    gateway: HttpClient, client: weir.Client
) -> None:
    fields = [("picture", PICTURES[0]), ("top", b"1"), ("version", b"1"), ("picture", PICTURES[1])]

    answer = gateway.post("/v1/models/colours:classify", *form(fields))

    expected = client.classify("colours", PICTURES, top=1)
    assert answer.code == 200
    assert answer.json()["results"] == [{"classes": classes(each)} for each in expected]


def test_texts_are_tagged_as_by_the_client(gateway: HttpClient, client: weir.Client) -> None:
    texts = ["The cat, sat", ["cat", "a b"]]

    answer = gateway.post("/v1/models/tagger:tag", {"texts": texts, "version": 1})

    expected = client.tag("tagger", texts)
    assert answer.json() == {
        "model": "tagger",
        "version": "1",
        "results": [{"tokens": [asdict(token) for token in each]} for each in expected],
    }


def test_texts_are_classified_as_by_the_client(gateway: HttpClient, client: weir.Client) -> None:
    texts = ["the cat the dog", ["sat"]]

    answer = gateway.post("/v1/models/classifier:classify-text", {"texts": texts, "top": 2})

    expected = client.classify_text("classifier", texts, top=2)
    assert answer.json() == {
        "model": "classifier",
        "version": "1",
        "results": [
            {"classes": classes(each.classes), "unknown": list(each.unknown)} for each in expected
        ],
    }


def test_series_is_forecast_as_by_the_client(gateway: HttpClient, client: weir.Client) -> None:
    columns: dict[str, list[float]] = {"price": [9, 0.25, 0.5, 0.75], "sales": [9, 1, 2, 3]}

    answer = gateway.post(
        "/v1/models/forecaster:forecast", {"columns": columns, "horizon": 1}
    ).json()

    expected = client.forecast("forecaster", columns, horizon=1)
    assert answer == {
        "model": "forecaster",
        "version": "1",
        "name": expected.name,
        "values": expected.values.tolist(),
        "lower": None,
        "upper": None,
        "level": None,
    }


def test_generation_streams_the_clients_tokens_and_result(
    generating_gateway: HttpClient, generating_client: weir.Client
) -> None:
    running = generating_client.generate("pair", "abc", attention=True)
    tokens, result = [asdict(token) for token in running], running.result()

    path, asked = "/v1/models/pair:generate", {"text": "abc", "attention": True}
    with generating_gateway.stream(path, asked) as stream:
        events = list(stream)

    assert events[:-1] == [("token", token) for token in tokens]
    (best,) = result.hypotheses
    assert best.attention is not None
    name, data = events[-1]
    assert name == "result"
    assert data == {
        "model": "pair",
        "version": "1",
        "source": ["a", "b", "c"],
        "unknown": [],
        "hypotheses": [
            {
                "text": best.text,
                "tokens": best.tokens,
                "log_probability": best.log_probability,
                "score": best.score,
                "is_complete": best.is_complete,
                "attention": best.attention.tolist(),
            }
        ],
    }


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"beam": {"width": 3}, "n_best": 2}, {"search": weir.Beam(3), "n_best": 2}),
        (
            {"beam": {"width": 2, "length_power": 0.0}, "max_tokens": 2},
            {"search": weir.Beam(2, 0.0), "max_tokens": 2},
        ),
        (
            {"sample": {"temperature": 1.5, "top_k": 4, "seed": 7}, "n_best": 2},
            {"search": weir.Sample(1.5, 4, 7), "n_best": 2},
        ),
        ({"max_tokens": 3, "version": "1"}, {"max_tokens": 3}),
    ],
    ids=["beam", "beam without length", "samples", "cut off"],
)
def test_searches_are_the_clients(
    generating_gateway: HttpClient,
    generating_client: weir.Client,
    asked: Mapping[str, Any],
    options: Any,
) -> None:
    expected = generating_client.generate("pair", "hgfedc", **options).result()

    with generating_gateway.stream(
        "/v1/models/pair:generate", {"text": "hgfedc", **asked}
    ) as stream:
        *_, (_, result) = stream

    found = [(each["tokens"], each["score"], each["is_complete"]) for each in result["hypotheses"]]
    assert found == [
        (list(each.tokens), each.score, each.is_complete) for each in expected.hypotheses
    ]


def test_tokens_arrive_as_they_are_generated(generating_gateway: HttpClient) -> None:
    with generating_gateway.stream("/v1/models/endless:generate", {"text": ENDLESS}) as stream:
        heard = list(islice(stream, LISTENED))

    assert [name for name, _ in heard] == ["token"] * LISTENED
    assert {data["token"] for _, data in heard} == {"A"}


def test_client_that_leaves_cancels_the_call_of_the_server(
    generating_gateway: HttpClient, speaker: Server
) -> None:
    speaker.wait_for_metric(0, "weir_generation_active_rows", model="endless")
    before = cancelled_rows(speaker)

    with generating_gateway.stream("/v1/models/endless:generate", {"text": ENDLESS}) as stream:
        next(stream)

    speaker.wait_for_metric(0, "weir_generation_active_rows", model="endless")
    # Not those that ended at the deadline of the call.
    wait_until(lambda: cancelled_rows(speaker) == before + 1, "expected one more cancelled row")


def cancelled_rows(server: Server) -> float:
    """Rows of `endless` that ended because their call was cancelled."""
    return server.metric("weir_generation_finished_total", model="endless", reason="cancelled")


def test_failure_before_the_first_token_is_an_answer_with_its_code(
    generating_gateway: HttpClient,
) -> None:
    unknown = generating_gateway.post("/v1/models/nothing:generate", {"text": "abc"})
    no_speaker = generating_gateway.post("/v1/models/pair.encoder:generate", {"text": "abc"})

    assert (unknown.code, unknown.json()["status"]) == (404, "NOT_FOUND")
    assert (no_speaker.code, no_speaker.json()["status"]) == (400, "INVALID_ARGUMENT")


def test_failure_on_the_way_is_an_event(generating_gateway: HttpClient, speaker: Server) -> None:
    with closing(generating_gateway.connect()) as connection:
        headers = {"x-request-timeout": "1"}
        body = json.dumps({"text": ENDLESS})
        connection.request("POST", "/v1/models/endless:generate", body, headers)
        answer = connection.getresponse()
        blocks = answer.read().decode().split("\n\n")

    assert answer.status == 200
    assert blocks[0].startswith("event: token\n") and blocks[-1] == ""
    name, data = blocks[-2].split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["status"] == "DEADLINE_EXCEEDED"
    speaker.wait_for_metric(0, "weir_generation_active_rows", model="endless")


def test_client_that_does_not_read_its_stream_holds_up_no_other(
    generating_gateway: HttpClient, speaker: Server
) -> None:
    host, _, port = generating_gateway.address.partition(":")
    body = json.dumps({"text": ENDLESS}).encode()
    head = (
        f"POST /v1/models/endless:generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    )
    with socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.connect((host, int(port)))
        mute.sendall(head.encode() + b"\r\n" + body)
        speaker.wait_for_metric(1, "weir_generation_active_rows", model="endless")

        for _ in range(10):
            asked = {"text": "abc"}
            with generating_gateway.stream("/v1/models/endless:generate", asked) as stream:
                *_, (name, _) = stream
            assert name == "result"

    speaker.wait_for_metric(0, "weir_generation_active_rows", model="endless")


REFUSED: dict[str, tuple[str, object, str]] = {
    "no JSON": ("colours:classify", b"{", "body: expected JSON"),
    "no object": ("colours:classify", [], "body: expected a JSON object, got an array"),
    "no pictures": ("colours:classify", {}, "pictures: expected a value, got none"),
    "unknown field": ("tagger:tag", {"texts": [], "text": "a"}, "text: unknown field"),
    "wrong base64": (
        "colours:classify",
        {"pictures": [{"base64": "AAAA"}, {"base64": "=="}]},
        "pictures[1].base64: expected base64",
    ),
    "no picture": (
        "colours:classify",
        {"pictures": [{"base64": "AAAA"}]},
        "pictures[0]: expected JPEG or PNG",
    ),
    "wrong text": ("tagger:tag", {"texts": ["a", 5]}, "texts[1]: expected a text or a list"),
    "lone surrogate": (
        "tagger:tag",
        b'{"texts": ["\\ud800"], "x": NaN}',
        "surrogates not allowed",
    ),
    "both searches": (
        "tagger:generate",
        {"text": "a", "beam": {"width": 2}, "sample": {}},
        "beam, sample: expected one of them, got both",
    ),
    "neither series": ("forecaster:forecast", {}, "columns, values: expected one of them"),
    "NaN": ("forecaster:forecast", b'{"values": [NaN]}', "values[0]: expected a finite number"),
    "long horizon": (
        "forecaster:forecast",
        {"columns": {"price": [1, 2, 3], "sales": [1, 2, 3]}, "horizon": 9},
        "horizon: expected at most 2",
    ),
    "wrong version": ("tagger:tag", {"texts": ["a"], "version": False}, "version: expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_request_is_refused_by_name(gateway: HttpClient, name: str) -> None:
    path, body, message = REFUSED[name]

    answer = gateway.post(f"/v1/models/{path}", body)

    assert answer.code == 400, answer
    assert answer.json()["status"] == "INVALID_ARGUMENT"
    assert message in answer.json()["error"]


def test_version_that_is_not_there_is_not_found(gateway: HttpClient) -> None:
    answer = gateway.post("/v1/models/tagger:tag", {"texts": ["cat"], "version": 9})

    assert (answer.code, answer.json()["status"]) == (404, "NOT_FOUND")
