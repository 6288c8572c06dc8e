"""The client for asyncio: the methods of `weir.Client`, awaited.

What goes over the wire, and how answers are read, is shared with `Client`; this is grpc.aio around
it. A client belongs to the event loop it is made in.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from typing import Self, Unpack

import grpc

from weir.client import calls, defaults, errors, operations, results, wire
from weir.client.async_connection import AsyncConnection
from weir.client.connection import Inputs
from weir.client.defaults import LOADING_S
from weir.client.generating import GENERATE, GenerateOptions, generate_request
from weir.client.generation import AsyncGeneration
from weir.client.pictures import Picture, classify, load
from weir.client.series import Columns, forecast
from weir.client.texts import Text, classify_text, tag
from weir.protocol import inference_pb2 as pb


class AsyncClient:
    """Calls a server of the Open Inference Protocol from asyncio.

    Arguments, errors and deadlines are those of `weir.Client`. Close it, or use it in an
    `async with`.
    """

    def __init__(
        self,
        target: str = defaults.TARGET,
        *,
        timeout_s: float | None = defaults.TIMEOUT_S,
        max_message_bytes: int = defaults.MAX_MESSAGE_BYTES,
        metadata: Mapping[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.target = target
        self._connection = AsyncConnection(
            target, timeout_s, max_message_bytes, metadata, credentials
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        await self._connection.close()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[wire.InferOptions],
    ) -> results.Answer:
        """Run a model on arrays by input name, or on one array if it has one input."""
        named = await self._connection.named(model, options.get("version", ""), inputs)
        request = wire.infer_request(model, named, **options)
        return await self._connection.unary(wire.infer(request), timeout_s)

    def stream(
        self,
        model: str,
        requests: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        timeout_s: float = math.inf,
        in_flight: int = 64,
        **options: Unpack[wire.InferOptions],
    ) -> AsyncGenerator[results.Answer, None]:
        """Send many requests over one stream and yield their answers in the requests' order.

        At most `in_flight` requests are read from `requests` ahead of the answer being waited for.
        A request that fails raises when its turn comes, and that ends the stream: as the leaf of
        its status, or as Unknown if the server tells none. The requests get ids of their own.
        """

        async def build(inputs: Inputs) -> pb.ModelInferRequest:
            named = await self._connection.named(model, options.get("version", ""), inputs)
            return wire.infer_request(model, named, **options)

        return self._connection.exchange(requests, build, timeout_s, in_flight)

    async def classify(
        self,
        model: str,
        pictures: Iterable[Picture],
        *,
        top: int = 5,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.Class]]:
        """The `top` most probable classes of each picture, best first, in one call."""
        # Files are read on a thread: a slow disk must not hold up the event loop.
        loaded = await asyncio.to_thread(load, pictures)
        return await self._connection.unary(
            classify(model, loaded, top=top, version=version), timeout_s
        )

    async def tag(
        self,
        model: str,
        texts: Iterable[Text],
        *,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.TaggedToken]]:
        """The tag of every token of each text, in one call."""
        return await self._connection.unary(tag(model, texts, version=version), timeout_s)

    async def classify_text(
        self,
        model: str,
        texts: Iterable[Text],
        *,
        top: int = 5,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[results.ClassifiedText]:
        """The `top` most probable classes of each text, best first, in one call; texts as `tag`."""
        call = classify_text(model, texts, top=top, version=version)
        return await self._connection.unary(call, timeout_s)

    def generate(
        self,
        model: str,
        text: Text,
        *,
        timeout_s: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGeneration:
        """What an encoder-decoder makes of a text: `async for` its tokens, or await its `result()`.

        The call itself is not awaited.
        """
        body = generate_request(model, text, **options)
        return AsyncGeneration(self._connection.stream(GENERATE, body, timeout_s))

    async def forecast(
        self,
        model: str,
        columns: Columns,
        *,
        horizon: int = 0,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> results.Forecast:
        """The `horizon` values that follow a series, by default as many as the model sees ahead."""
        call = forecast(model, columns, horizon=horizon, version=version)
        return await self._connection.unary(call, timeout_s)

    async def rank(
        self,
        model: str,
        inputs: Inputs,
        *,
        top: int = 5,
        output: str = "",
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.Class]]:
        """The `top` classes of each row, best first, of `probabilities` or the output named."""
        call = await self._connection.rank(model, inputs, top=top, output=output, version=version)
        return await self._connection.unary(call, timeout_s)

    async def metadata(self, model: str, version: wire.Version = "") -> results.ModelMetadata:
        """Names, datatypes and shapes of a model's tensors."""
        return await self._connection.unary(calls.metadata(model, version))

    async def server_metadata(self) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions, in the protocol's own message."""
        return await self._connection.unary(calls.server_metadata())

    async def config(self, model: str, version: wire.Version = "") -> pb.ModelConfigResponse:
        """A model's configuration, in the protocol's own message."""
        return await self._connection.unary(calls.config(model, version))

    async def statistics(
        self, model: str = "", version: wire.Version = ""
    ) -> pb.ModelStatisticsResponse:
        """Counts and durations of a model, or of all, in the protocol's own message."""
        return await self._connection.unary(calls.statistics(model, version))

    async def index(self, *, ready: bool = False) -> tuple[results.IndexEntry, ...]:
        """Every model the server knows, or only those that are ready."""
        return await self._connection.unary(calls.index(ready=ready))

    async def models(self) -> list[results.ModelInfo]:
        """Every model with its versions: their states, labels and proofs. Only Weir tells that."""
        return await self._connection.unary(operations.models())

    async def load(self, model: str, *, reload: bool = False, timeout_s: float = LOADING_S) -> None:
        """Bring what is on disk of a model into service; with `reload` also what is unchanged."""
        await self._connection.unary(operations.load(model, reload=reload), timeout_s)

    async def unload(self, model: str, *, timeout_s: float = LOADING_S) -> None:
        """Take a model out of service; what it has been asked already is answered."""
        await self._connection.unary(operations.unload(model), timeout_s)

    async def set_label(
        self, model: str, label: str, version: int | None, *, timeout_s: float = LOADING_S
    ) -> None:
        """Give a label to a version, which is loaded first if it does not serve; None removes it."""
        await self._connection.unary(operations.set_label(model, label, version), timeout_s)

    async def is_live(self) -> bool:
        """Whether the server answers at all."""
        return await self._connection.holds(calls.server_live())

    async def is_ready(self) -> bool:
        """Whether the server takes work."""
        return await self._connection.holds(calls.server_ready())

    async def model_ready(self, model: str, version: wire.Version = "") -> bool:
        """Whether a model can answer now; an unknown one cannot."""
        return await self._connection.holds(calls.model_ready(model, version))

    async def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, of a model by name or of the server."""
        return await self._connection.unary(calls.health(service))

    def watch(self, service: str = "", *, timeout_s: float = math.inf) -> AsyncGenerator[str, None]:
        """The health of a service, now and at each change, until the server closes the stream."""
        return self._connection.watch(service, timeout_s)

    async def wait_ready(self, model: str = "", *, timeout_s: float = 60.0) -> None:
        """Return once a model, or the server, serves; DeadlineExceeded if it does not in time."""
        async with aclosing(self.watch(model, timeout_s=timeout_s)) as changes:
            async for status in changes:
                if status == calls.SERVING:
                    return
        raise errors.Unavailable(f"{self.target}: the server stopped before it was ready")
