"""Forms, searches and events of the task routes, without a server."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from weir.client.errors import InvalidArgument, ResourceExhausted
from weir.client.generation import Beam, Sample, read_message
from weir.gateway import task_schemas as schemas
from weir.gateway import tasks
from weir.gateway.multipart import Part
from weir.protocol import tasks_pb2 as pb

RESULT = pb.GenerateResponse(
    result=pb.GenerateResponse.Result(
        model_name="m",
        model_version="3",
        source=["a", "b"],
        hypotheses=[
            pb.GenerateResponse.Hypothesis(
                text="X",
                tokens=["X"],
                score=-0.5,
                is_complete=True,
                attention=[pb.GenerateResponse.Attention(weights=[0.25, 0.75])],
            )
        ],
    )
)


def token(text: str) -> pb.GenerateResponse:
    return pb.GenerateResponse(token=pb.GenerateResponse.Token(token=text, text=text))


class Stream:
    """Messages of a server, and what was done with them."""

    def __init__(self, *messages: pb.GenerateResponse, failure: Exception | None = None) -> None:
        self._messages = messages
        self._failure = failure
        self.taken = 0
        self.is_closed = False

    async def bodies(self) -> AsyncGenerator[bytes, None]:
        try:
            for message in self._messages:
                self.taken += 1
                yield message.SerializeToString()
            if self._failure:
                raise self._failure
        finally:
            self.is_closed = True


async def collected(stream: Stream) -> list[tuple[str, Any]]:
    bodies = stream.bodies()
    first = read_message(await anext(bodies))
    found = []
    async for data in tasks.events(first, bodies):
        name, content, *end = data.decode().split("\n")
        assert end == ["", ""]
        found.append((name.removeprefix("event: "), json.loads(content.removeprefix("data: "))))
    return found


def test_tokens_and_the_result_are_events() -> None:
    stream = Stream(token("A\n"), token("B"), RESULT)

    found = asyncio.run(collected(stream))

    assert found == [
        ("token", {"token": "A\n", "text": "A\n", "log_probability": 0.0}),
        ("token", {"token": "B", "text": "B", "log_probability": 0.0}),
        (
            "result",
            {
                "model": "m",
                "version": "3",
                "source": ["a", "b"],
                "unknown": [],
                "hypotheses": [
                    {
                        "text": "X",
                        "tokens": ["X"],
                        "log_probability": 0.0,
                        "score": -0.5,
                        "is_complete": True,
                        "attention": [[0.25, 0.75]],
                    }
                ],
            },
        ),
    ]
    assert stream.is_closed


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (Stream(token("A"), failure=ResourceExhausted("full")), "RESOURCE_EXHAUSTED"),
        (Stream(token("A")), "INTERNAL"),
        (Stream(token("A"), pb.GenerateResponse()), "INTERNAL"),
    ],
    ids=["failure", "no result", "neither token nor result"],
)
def test_stream_that_breaks_off_ends_with_an_error(stream: Stream, status: str) -> None:
    *_, (name, content) = asyncio.run(collected(stream))

    assert (name, content["status"]) == ("error", status)
    assert stream.is_closed


def test_next_message_waits_until_the_last_is_written() -> None:
    stream = Stream(*[token("A")] * 100)

    async def main() -> None:
        sent: list[Any] = []
        is_full = asyncio.Event()

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 5:
                is_full.set()
                await asyncio.Event().wait()

        bodies = stream.bodies()
        first = read_message(await anext(bodies))
        response = tasks.EventStream(first, bodies)
        answering = asyncio.create_task(response({}, send, send))  # type: ignore[arg-type]
        await is_full.wait()
        await asyncio.sleep(0)
        # The head, and four tokens.
        assert stream.taken == 4
        answering.cancel()
        await asyncio.wait([answering])
        assert stream.is_closed

    asyncio.run(main())


def test_client_that_leaves_before_the_head_ends_the_call() -> None:
    stream = Stream(token("A"), token("B"))

    async def main() -> None:
        async def send(_message: Any) -> None:
            raise asyncio.CancelledError

        bodies = stream.bodies()
        first = read_message(await anext(bodies))
        response = tasks.EventStream(first, bodies)
        with pytest.raises(asyncio.CancelledError):
            await response({}, send, send)  # type: ignore[arg-type]
        assert stream.is_closed

    asyncio.run(main())


def test_form_has_pictures_and_options() -> None:
    parts = [Part("picture", b"a"), Part("top", b"3"), Part("version", b"4"), Part("picture", b"b")]

    assert tasks.read_form(parts) == ([b"a", b"b"], 3, "4")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part("top", b"x"), 'top: expected an integer, got "x"'),
        (Part("top", "٣".encode()), "top: expected an integer"),
        (Part("top", b"9" * 5000), "top: expected an integer"),
        (Part("top", b"0"), "top: expected at least 1"),
        (Part("pictures", b""), "pictures: unknown field; expected picture, top, version"),
        (Part("version", b"2"), "version: expected the field once, got it twice"),
    ],
)
def test_wrong_field_of_a_form_is_named(part: Part, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        tasks.read_form([Part("version", b"1"), part])

    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "search"),
    [
        ({}, None),
        ({"beam": {"width": 3}}, Beam(3, None)),
        ({"beam": {"width": 3, "length_power": 0}}, Beam(3, 0)),
        ({"sample": {}}, Sample(1.0, 0, None)),
        ({"sample": {"temperature": 2, "top_k": 5, "seed": 0}, "beam": None}, Sample(2, 5, 0)),
    ],
)
def test_search_is_the_clients(fields: dict[str, Any], search: Beam | Sample | None) -> None:
    asked = schemas.read(schemas.GenerateRequest, {"text": "a", **fields})

    assert tasks.generate_options(asked)["search"] == search


def test_interval_of_a_forecast_is_left_out_without_a_level() -> None:
    plain = pb.ForecastResponse(model_name="f", model_version="1", name="sales", values=[1, 2])
    banded = pb.ForecastResponse(values=[1], lower=[0], upper=[2], level=0.8)

    assert tasks.read_forecast(plain.SerializeToString()).lower is None
    assert tasks.read_forecast(banded.SerializeToString()).upper == [2.0]
