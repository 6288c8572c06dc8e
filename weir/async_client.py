"""The client for asyncio: the methods of `weir.Client`, awaited.

What goes over the wire, and how answers are read, is shared with `Client`; this is grpc.aio around
it. A client belongs to the event loop it is made in.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
from numpy.typing import ArrayLike

from server.pb import inference_pb2 as pb
from weir import calls, defaults, errors, wire
from weir.answers import Answer, Class, IndexEntry, ModelMetadata
from weir.async_streaming import stream_answers
from weir.pictures import Picture, classify, load

Inputs = Mapping[str, ArrayLike] | ArrayLike
Result = TypeVar("Result")


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
        self._timeout_s = timeout_s
        self._metadata = tuple((metadata or {}).items())
        options = wire.channel_options(max_message_bytes)
        self._channel = (
            grpc.aio.insecure_channel(target, options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options)
        )
        self._known: dict[tuple[str, str], ModelMetadata] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        await self._channel.close()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[wire.InferOptions],
    ) -> Answer:
        """Run a model on arrays by input name, or on one array if it has one input."""
        named = await self._named(model, options.get("version", ""), inputs)
        request = wire.infer_request(model, named, **options)
        return await self._unary(wire.infer(request), timeout_s)

    def stream(
        self,
        model: str,
        requests: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        timeout_s: float = math.inf,
        in_flight: int = 64,
        **options: Unpack[wire.InferOptions],
    ) -> AsyncGenerator[Answer, None]:
        """Send many requests over one stream and yield their answers in the requests' order.

        At most `in_flight` requests are read from `requests` ahead of the answer being waited for.
        A request that fails raises when its turn comes, and that ends the stream: as the leaf of
        its status, or as Unknown if the server tells none. The requests get ids of their own.
        """

        async def build(inputs: Inputs) -> pb.ModelInferRequest:
            named = await self._named(model, options.get("version", ""), inputs)
            return wire.infer_request(model, named, **options)

        return stream_answers(
            self._channel,
            requests,
            build,
            timeout_s=wire.limit(timeout_s, self._timeout_s),
            metadata=self._metadata,
            in_flight=in_flight,
        )

    async def classify(
        self,
        model: str,
        pictures: Iterable[Picture],
        *,
        top: int = 5,
        version: str = "",
        timeout_s: float | None = None,
    ) -> list[list[Class]]:
        """The `top` most probable classes of each picture, best first, in one call."""
        # Files are read on a thread: a slow disk must not hold up the event loop.
        loaded = await asyncio.to_thread(load, pictures)
        return await self._unary(classify(model, loaded, top=top, version=version), timeout_s)

    async def rank(
        self,
        model: str,
        inputs: Inputs,
        *,
        top: int = 5,
        output: str = "",
        version: str = "",
        timeout_s: float | None = None,
    ) -> list[list[Class]]:
        """The `top` classes of each row, best first, of `probabilities` or the output named."""
        output = output or wire.ranked_output(await self._metadata_of(model, version))
        named = await self._named(model, version, inputs)
        request = wire.infer_request(model, named, version=version, outputs=[output], top=top)
        return wire.classes(await self._unary(wire.infer(request), timeout_s), output)

    async def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Names, datatypes and shapes of a model's tensors."""
        return await self._unary(calls.metadata(model, version))

    async def server_metadata(self) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions, in the protocol's own message."""
        return await self._unary(calls.server_metadata())

    async def config(self, model: str, version: str = "") -> pb.ModelConfigResponse:
        """A model's configuration, in the protocol's own message."""
        return await self._unary(calls.config(model, version))

    async def statistics(self, model: str = "", version: str = "") -> pb.ModelStatisticsResponse:
        """Counts and durations of a model, or of all, in the protocol's own message."""
        return await self._unary(calls.statistics(model, version))

    async def index(self, *, ready: bool = False) -> tuple[IndexEntry, ...]:
        """Every model the server knows, or only those that are ready."""
        return await self._unary(calls.index(ready=ready))

    async def is_live(self) -> bool:
        """Whether the server answers at all."""
        return await self._holds(calls.server_live())

    async def is_ready(self) -> bool:
        """Whether the server takes work."""
        return await self._holds(calls.server_ready())

    async def model_ready(self, model: str, version: str = "") -> bool:
        """Whether a model can answer now; an unknown one cannot."""
        return await self._holds(calls.model_ready(model, version))

    async def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, of a model by name or of the server."""
        return await self._unary(calls.health(service))

    async def watch(
        self, service: str = "", *, timeout_s: float = math.inf
    ) -> AsyncGenerator[str, None]:
        """The health of a service, now and at each change, until the server closes the stream."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = self._channel.unary_stream(calls.WATCH)
        call = method(
            calls.health_request(service),
            timeout=wire.limit(timeout_s, self._timeout_s),
            metadata=self._metadata,
            wait_for_ready=True,
        )
        try:
            async for body in call:
                yield calls.read_health(body)
        except grpc.aio.AioRpcError as error:
            raise errors.from_failure(error) from error
        finally:
            call.cancel()

    async def wait_ready(self, model: str = "", *, timeout_s: float = 60.0) -> None:
        """Return once a model, or the server, serves; DeadlineExceeded if it does not in time."""
        async with aclosing(self.watch(model, timeout_s=timeout_s)) as changes:
            async for status in changes:
                if status == calls.SERVING:
                    return
        raise errors.Unavailable(f"{self.target}: the server stopped before it was ready")

    async def _unary(self, call: wire.Call[Result], timeout_s: float | None = None) -> Result:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = self._channel.unary_unary(call.path)
        limit_s = wire.limit(timeout_s, self._timeout_s)
        try:
            body = await method(call.body, timeout=limit_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise errors.from_failure(error) from error
        return call.read(body)

    async def _holds(self, call: wire.Call[bool]) -> bool:
        try:
            return await self._unary(call)
        except (errors.Unavailable, errors.NotFound, errors.DeadlineExceeded):
            return False

    async def _named(self, model: str, version: str, inputs: Inputs) -> Mapping[str, ArrayLike]:
        if isinstance(inputs, Mapping):
            return inputs
        return wire.only_input(await self._metadata_of(model, version), inputs)

    async def _metadata_of(self, model: str, version: str) -> ModelMetadata:
        """A model's tensors, asked for once per client."""
        key = (model, version)
        if key not in self._known:
            self._known[key] = await self.metadata(model, version)
        return self._known[key]
