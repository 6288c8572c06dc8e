"""The task routes: pictures, texts and series as JSON, forms and server-sent events.

`POST /v1/models/{name}:classify`, `:classify-text`, `:tag`, `:generate` and `:forecast` make the
calls of `weir.v1.Tasks`. Rules of `:generate`:

- The head of the answer waits for the first message of the server: a failure before it is an
  ordinary answer with its HTTP code.
- Then each message is one event, sent when it comes: `token`, and at the end `result` or `error`.
- The next message is read when the last one is written, so a client that reads slowly holds up its
  own call only, by the flow control of HTTP/2.
- The call is cancelled when the client leaves.
"""

import binascii
import re
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from weir.client import tasks
from weir.client.errors import CallError, InvalidArgument, WeirError
from weir.client.generation import (
    GENERATE,
    Beam,
    GenerateOptions,
    Sample,
    generate_request,
    read_message,
)
from weir.client.results import Generated, GeneratedToken
from weir.client.rpc import Call, Result, Version, parse
from weir.gateway import body, errors, multipart
from weir.gateway import task_schemas as schemas
from weir.gateway.body import json_object
from weir.gateway.endpoint import Handler, route
from weir.gateway.upstream import Gateway
from weir.protocol import tasks_pb2 as pb

# Far more than a batch has rows; the server bounds the pictures.
_MOST_PARTS = 1000
_DECIMAL = re.compile(r"[0-9]{1,10}")


Answer = TypeVar("Answer", bound=schemas.Response)


def routes(gateway: Gateway) -> list[Route]:
    """The routes of the tasks."""
    service = _Service(gateway)
    handlers: dict[str, Handler] = {
        "classify": service.classify,
        "classify-text": partial(service.unary, classify_text_call),
        "tag": partial(service.unary, tag_call),
        "generate": service.generate,
        "forecast": partial(service.unary, forecast_call),
    }
    return [
        route(f"/v1/models/{{name}}:{verb}", handler, gateway, "POST")
        for verb, handler in handlers.items()
    ]


class _Service:
    """The handlers, over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def classify(self, request: Request) -> Response:
        content_type = request.headers.get("content-type", "")
        is_form = content_type.lower().startswith(multipart.CONTENT_TYPE)
        if is_form:
            make_call = partial(classify_form_call, content_type)
            return await self.unary(make_call, request, is_json=False)
        return await self.unary(classify_call, request)

    async def unary(
        self,
        make_call: Callable[[str, bytes], Call[Answer]],
        request: Request,
        *,
        is_json: bool = True,
    ) -> Response:
        """The answer of a call, which is made of the model's name and the request's body."""
        call = await self._read(make_call, request, is_json=is_json)
        document = await self._gateway.upstream.unary(request, call)
        return Response(document.model_dump_json(), media_type=errors.JSON)

    async def generate(self, request: Request) -> Response:
        message = await self._read(generate_message, request)
        bodies = self._gateway.upstream.stream(request, GENERATE, message)
        try:
            first = read_message(await anext(bodies, None))
        except BaseException:
            await bodies.aclose()
            raise
        return EventStream(first, bodies)

    async def _read(
        self, read: Callable[[str, bytes], Result], request: Request, *, is_json: bool = True
    ) -> Result:
        data = await body.read(request, self._gateway)
        read_body = partial(read, request.path_params["name"], data)
        if is_json:
            return await body.parse_json(request, self._gateway, data, read_body)
        return await body.run(len(data), read_body)


def classify_call(model: str, data: bytes) -> Call[schemas.ClassifyResponse]:
    """The call of `:classify` for a JSON body."""
    asked = schemas.read(schemas.ClassifyRequest, json_object(data))
    pictures = [_decode(index, each.base64) for index, each in enumerate(asked.pictures)]
    return _classify(model, pictures, asked.top, asked.version)


def classify_form_call(
    content_type: str, model: str, data: bytes
) -> Call[schemas.ClassifyResponse]:
    """The call of `:classify` for a form."""
    parts = multipart.parse(data, content_type, most_parts=_MOST_PARTS)
    return _classify(model, *read_form(parts))


def classify_text_call(model: str, data: bytes) -> Call[schemas.ClassifyTextResponse]:
    """The call of `:classify-text`."""
    asked = schemas.read(schemas.ClassifyTextRequest, json_object(data))
    call = tasks.classify_text(model, asked.texts, top=asked.top, version=asked.version)
    return _with_reader(call, read_classified_text)


def tag_call(model: str, data: bytes) -> Call[schemas.TagResponse]:
    """The call of `:tag`."""
    asked = schemas.read(schemas.TagRequest, json_object(data))
    return _with_reader(tasks.tag(model, asked.texts, version=asked.version), read_tagged)


def forecast_call(model: str, data: bytes) -> Call[schemas.ForecastResponse]:
    """The call of `:forecast`."""
    asked = schemas.read(schemas.ForecastRequest, json_object(data))
    given = asked.model_fields_set & {"columns", "values"}
    if len(given) != 1:
        found = "both" if given else "neither"
        raise InvalidArgument(f"columns, values: expected one of them, got {found}")
    columns = asked.columns if "columns" in given else {"": asked.values}
    call = tasks.forecast(model, columns, horizon=asked.horizon, version=asked.version)
    return _with_reader(call, read_forecast)


def generate_message(model: str, data: bytes) -> bytes:
    """The request bytes of `:generate`."""
    asked = schemas.read(schemas.GenerateRequest, json_object(data))
    return generate_request(model, asked.text, **generate_options(asked))


def read_form(parts: Iterable[multipart.Part]) -> tuple[list[bytes], int, Version]:
    """Pictures, `top` and version of a form; InvalidArgument for a field that is wrong."""
    pictures: list[bytes] = []
    fields: dict[str, str | int] = {}
    for part in parts:
        if part.name == "picture":
            pictures.append(part.content)
            continue
        name = schemas.short(part.name)
        if name not in {"top", "version"}:
            raise InvalidArgument(f"{name}: unknown field; expected picture, top, version")
        if name in fields:
            raise InvalidArgument(f"{name}: expected the field once, got it twice")
        text = part.content.decode("utf-8", "replace")
        fields[name] = int(text) if name == "top" and _DECIMAL.fullmatch(text) else text
    asked = schemas.read(schemas.ClassifyRequest, {"pictures": [], **fields})
    return pictures, asked.top, asked.version


def generate_options(asked: schemas.GenerateRequest) -> GenerateOptions:
    """The options of a generation; InvalidArgument if it names two searches."""
    search: Beam | Sample | None = None
    if asked.beam and asked.sample:
        raise InvalidArgument("beam, sample: expected one of them, got both")
    if asked.beam:
        search = Beam(asked.beam.width, asked.beam.length_power)
    if asked.sample:
        search = Sample(asked.sample.temperature, asked.sample.top_k, asked.sample.seed)
    return {
        "search": search,
        "n_best": asked.n_best,
        "max_tokens": asked.max_tokens,
        "attention": asked.attention,
        "version": asked.version,
    }


def read_classified(response: bytes) -> schemas.ClassifyResponse:
    """The JSON of a response of `Classify`."""
    message = parse(pb.ClassifyResponse, response)
    return schemas.ClassifyResponse(
        model=message.model_name,
        version=message.model_version,
        results=[
            schemas.ClassifiedPicture(classes=_classes(each.classes)) for each in message.results
        ],
    )


def read_classified_text(response: bytes) -> schemas.ClassifyTextResponse:
    """The JSON of a response of `ClassifyText`."""
    message = parse(pb.ClassifyTextResponse, response)
    return schemas.ClassifyTextResponse(
        model=message.model_name,
        version=message.model_version,
        results=[
            schemas.ClassifiedText(classes=_classes(each.classes), unknown=list(each.unknown))
            for each in message.results
        ],
    )


def read_tagged(response: bytes) -> schemas.TagResponse:
    """The JSON of a response of `Tag`."""
    message = parse(pb.TagResponse, response)
    return schemas.TagResponse(
        model=message.model_name,
        version=message.model_version,
        results=[
            schemas.TaggedText(
                tokens=[
                    schemas.TaggedToken(
                        text=token.text,
                        tag=token.tag,
                        probability=token.probability,
                        is_unknown=token.is_unknown,
                    )
                    for token in each.tokens
                ]
            )
            for each in message.results
        ],
    )


def read_forecast(response: bytes) -> schemas.ForecastResponse:
    """The JSON of a response of `Forecast`."""
    message = parse(pb.ForecastResponse, response)
    # A level of 0 says that there is no interval.
    has_interval = message.level > 0
    return schemas.ForecastResponse(
        model=message.model_name,
        version=message.model_version,
        name=message.name,
        values=list(message.values),
        lower=list(message.lower) if has_interval else None,
        upper=list(message.upper) if has_interval else None,
        level=message.level if has_interval else None,
    )


async def events(
    first: GeneratedToken | Generated, bodies: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The server-sent events of a generation, up to `result` or `error`.

    Args:
        first: the first message of the stream, read already.
        bodies: the following messages; closed with this generator.
    """
    async with aclosing(bodies):
        message = first
        try:
            while isinstance(message, GeneratedToken):
                yield event("token", token_event(message).model_dump_json())
                message = read_message(await anext(bodies, None))
        except WeirError as error:
            yield event("error", orjson.dumps(errors.error_content(error)).decode())
            return
        yield event("result", result_event(message).model_dump_json())
        # Only the status is left. Dropped before it arrives, the call would count as cancelled.
        with suppress(CallError):
            await anext(bodies, None)


def event(name: str, data: str) -> bytes:
    """A server-sent event; its data is JSON, which is one line."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def token_event(token: GeneratedToken) -> schemas.TokenEvent:
    """The data of the event `token`."""
    return schemas.TokenEvent(
        token=token.token, text=token.text, log_probability=token.log_probability
    )


def result_event(result: Generated) -> schemas.ResultEvent:
    """The data of the event `result`."""
    return schemas.ResultEvent(
        model=result.model,
        version=result.version,
        source=list(result.source),
        unknown=list(result.unknown),
        hypotheses=[
            schemas.Hypothesis(
                text=each.text,
                tokens=list(each.tokens),
                log_probability=each.log_probability,
                score=each.score,
                is_complete=each.is_complete,
                attention=None if each.attention is None else each.attention.tolist(),
            )
            for each in result.hypotheses
        ],
    )


class EventStream(Response):
    """The events of a generation; ends with the task of its request, and its call with it.

    Args:
        first: the first message of the call, read already.
        bodies: the following messages.
    """

    media_type = "text/event-stream"

    def __init__(
        self, first: GeneratedToken | Generated, bodies: AsyncGenerator[bytes, None]
    ) -> None:
        # nginx would collect the events of a response that it buffers.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        # The base class knows the length of its body, a stream has none.
        del self.headers["content-length"]
        self._bodies = bodies
        self._content = events(first, bodies)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the events; each waits until the client has taken most of the ones before it."""
        # A generator that has not begun closes nothing itself.
        async with aclosing(self._bodies), aclosing(self._content) as content:
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            async for data in content:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body"})


def _classify(
    model: str, pictures: list[bytes], top: int, version: Version
) -> Call[schemas.ClassifyResponse]:
    messages = tasks.picture_messages(pictures)
    return _with_reader(tasks.classify(model, messages, top=top, version=version), read_classified)


def _with_reader(call: Call[Any], read: Callable[[bytes], Answer]) -> Call[Answer]:
    """A call of the client with another reader: the client's leaves out the version."""
    return Call(call.path, call.body, read)


def _decode(position: int, text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise InvalidArgument(
            f"pictures[{position}].base64: expected base64 without line breaks: {error}"
        ) from error


def _classes(classes: Iterable[pb.ClassifyResponse.Class]) -> list[schemas.Class]:
    return [
        schemas.Class(label=each.label, index=each.index, probability=each.probability)
        for each in classes
    ]
