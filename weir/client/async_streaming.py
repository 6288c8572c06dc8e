"""`weir.client.streaming` for asyncio: the same slots and the same order, one task instead of a thread."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import Generic, TypeVar

import grpc

from weir.client import errors, wire
from weir.client.ordering import InOrder
from weir.client.results import Answer
from weir.protocol import inference_pb2 as pb

Given = TypeVar("Given")


async def stream_answers(
    channel: grpc.aio.Channel,
    given: Iterable[Given] | AsyncIterable[Given],
    build: Callable[[Given], Awaitable[pb.ModelInferRequest]],
    *,
    timeout_s: float | None,
    metadata: tuple[tuple[str, str], ...],
    in_flight: int,
) -> AsyncGenerator[Answer, None]:
    """Yield the answers in the requests' order; what fails raises when its turn comes."""
    feed = _Feed(given, build, in_flight)
    order = InOrder()
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    method = channel.stream_stream(wire.STREAM_INFER)
    call = method(feed.bodies(), timeout=timeout_s, metadata=metadata)
    try:
        async for body in call:
            for answer in order.put(*wire.read_stream_answer(body)):
                feed.slots.release()
                yield answer
    except grpc.aio.AioRpcError as error:
        raise errors.from_failure(error) from error
    finally:
        call.cancel()
    if feed.failure:
        raise feed.failure
    order.check_complete(feed.sent, all_sent=feed.is_exhausted)


class _Feed(Generic[Given]):
    """The requests as grpc.aio's task reads them; attributes as in `weir.client.streaming`."""

    def __init__(
        self,
        given: Iterable[Given] | AsyncIterable[Given],
        build: Callable[[Given], Awaitable[pb.ModelInferRequest]],
        in_flight: int,
    ) -> None:
        self.slots = asyncio.Semaphore(wire.check_in_flight(in_flight))
        self.failure: Exception | None = None
        self.sent = 0
        self.is_exhausted = False
        self._given = aiter(_each(given))
        self._build = build

    async def bodies(self) -> AsyncIterator[bytes]:
        """The serialised requests, each after a free slot was found."""
        while await self.slots.acquire():
            try:
                request = await self._build(await anext(self._given))
            except StopAsyncIteration:
                self.is_exhausted = True
                return
            except Exception as error:  # noqa: BLE001  the caller's own code, raised to the caller
                self.failure = error
                return
            request.id = str(self.sent)
            self.sent += 1
            yield request.SerializeToString()


async def _each(given: Iterable[Given] | AsyncIterable[Given]) -> AsyncIterator[Given]:
    if isinstance(given, AsyncIterable):
        async for one in given:
            yield one
    else:
        for one in given:
            yield one
