"""`weir.client.connection` for asyncio."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from typing import TypeVar

import grpc
from numpy.typing import ArrayLike

from weir.client import calls, errors, wire
from weir.client.async_streaming import stream_answers
from weir.client.connection import Inputs
from weir.client.results import Answer, Class, ModelMetadata
from weir.protocol import inference_pb2 as pb

Result = TypeVar("Result")
Given = TypeVar("Given")


class AsyncConnection:
    """A channel of grpc.aio; arguments as of `weir.client.connection.Connection`."""

    def __init__(
        self,
        target: str,
        timeout_s: float | None,
        max_message_bytes: int,
        metadata: Mapping[str, str] | None,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self._metadata = tuple((metadata or {}).items())
        self._timeout_s = timeout_s
        options = wire.channel_options(max_message_bytes)
        self._channel = (
            grpc.aio.insecure_channel(target, options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options)
        )
        self._known: dict[tuple[str, str], ModelMetadata] = {}

    async def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        await self._channel.close()

    async def unary(self, call: wire.Call[Result], timeout_s: float | None = None) -> Result:
        """Make a call and wait for its answer."""
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = self._channel.unary_unary(call.path)
        limit_s = self._limit_s(timeout_s)
        try:
            body = await method(call.body, timeout=limit_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            # Another version may answer by now, with other tensors.
            self._known.clear()
            raise errors.from_failure(error) from error
        return call.read(body)

    async def holds(self, call: wire.Call[bool]) -> bool:
        """What a call says; not so where nobody can be asked."""
        try:
            return await self.unary(call)
        except (errors.Unavailable, errors.NotFound, errors.DeadlineExceeded):
            return False

    def stream(
        self, path: str, body: bytes, timeout_s: float | None
    ) -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
        """Open a call of one request and many answers."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        return method(body, timeout=self._limit_s(timeout_s), metadata=self._metadata)

    def exchange(
        self,
        given: Iterable[Given] | AsyncIterable[Given],
        build: Callable[[Given], Awaitable[pb.ModelInferRequest]],
        timeout_s: float | None,
        in_flight: int,
    ) -> AsyncGenerator[Answer, None]:
        """Many requests over one stream, their answers in order."""
        return stream_answers(
            self._channel,
            given,
            build,
            timeout_s=self._limit_s(timeout_s),
            metadata=self._metadata,
            in_flight=in_flight,
        )

    async def watch(self, service: str, timeout_s: float | None) -> AsyncGenerator[str, None]:
        """The health of a service as it changes."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = self._channel.unary_stream(calls.WATCH)
        call = method(
            calls.health_request(service),
            timeout=self._limit_s(timeout_s),
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

    async def named(
        self, model: str, version: wire.Version, inputs: Inputs
    ) -> Mapping[str, ArrayLike]:
        """Arrays by the names of the model's inputs."""
        if isinstance(inputs, Mapping):
            return inputs
        return wire.only_input(await self.metadata_of(model, version), inputs)

    async def metadata_of(self, model: str, version: wire.Version) -> ModelMetadata:
        """A model's tensors, asked for once per client."""
        key = (model, str(version))
        if key not in self._known:
            self._known[key] = await self.unary(calls.metadata(model, version))
        return self._known[key]

    async def rank(
        self, model: str, inputs: Inputs, *, top: int, output: str, version: wire.Version
    ) -> wire.Call[list[list[Class]]]:
        """The call for the best classes of each row."""
        output = output or wire.ranked_output(await self.metadata_of(model, version))
        named = await self.named(model, version, inputs)
        return wire.rank(model, named, top=top, output=output, version=version)

    def _limit_s(self, timeout_s: float | None) -> float | None:
        return wire.limit(timeout_s, self._timeout_s)
