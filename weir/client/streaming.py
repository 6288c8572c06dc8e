"""Inference over one stream: many requests, their answers in the requests' order.

The requests are numbered from 0; an answer carries its request's number as its id. A semaphore
bounds the requests in flight: a slot is taken before a request is built and given back when its
answer is handed out. So memory stays bounded with a fast producer and with a slow answer.

gRPC reads the requests of a blocking client on a thread of its own, those of an asyncio client in a
task.
"""

import asyncio
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Generic, TypeVar

from weir.client.connection import AsyncConnection, Connection
from weir.client.errors import CallError, Internal, Unavailable, UsageError
from weir.client.results import Answer
from weir.client.rpc import STREAM_INFER, Inputs, read_stream_answer
from weir.protocol import inference_pb2 as pb

Item = TypeVar("Item")


class InOrder:
    """Reorder buffer: holds early answers until all answers before them are there. No I/O.

    `due` is the number of the next answer, which is also how many were handed out.
    """

    def __init__(self) -> None:
        self.due = 0
        self._early: dict[str, Answer | CallError] = {}

    def put(self, request_id: str, outcome: Answer | CallError) -> Iterator[Answer]:
        """Take an outcome and yield the answers that are due; an error raises when it is due."""
        if not request_id and isinstance(outcome, CallError):
            raise outcome
        if not request_id.isdecimal() or int(request_id) < self.due or request_id in self._early:
            raise Internal(f"an answer to {request_id!r}, which is not waited for")
        self._early[request_id] = outcome
        while (ready := self._early.pop(str(self.due), None)) is not None:
            self.due += 1
            if isinstance(ready, CallError):
                raise ready
            yield ready

    def check_complete(self, sent: int, *, all_sent: bool) -> None:
        """Raise Unavailable unless all requests were sent and answered."""
        if not all_sent or self.due != sent:
            raise Unavailable(f"the stream ended after {self.due} answers to {sent} requests")


def stream_answers(
    connection: Connection,
    requests: Iterable[pb.ModelInferRequest],
    *,
    timeout_s: float | None,
    in_flight: int,
) -> Generator[Answer, None, None]:
    """Yield the answers in the requests' order; an error raises when its answer is due."""
    feed, order = _Feed(requests, in_flight), InOrder()
    with connection.context:
        call = connection.stream_stream(STREAM_INFER, feed.bodies(), timeout_s)
        try:
            for body in call:
                for answer in order.put(*read_stream_answer(body)):
                    feed.slots.release()
                    yield answer
        finally:
            feed.close()
            call.cancel()
        if feed.failure:
            raise feed.failure
        order.check_complete(feed.sent, all_sent=feed.is_exhausted)


async def stream_answers_async(
    connection: AsyncConnection,
    items: Iterable[Inputs] | AsyncIterable[Inputs],
    build: Callable[[Inputs], Awaitable[pb.ModelInferRequest]],
    *,
    timeout_s: float | None,
    in_flight: int,
) -> AsyncGenerator[Answer, None]:
    """`stream_answers` for asyncio; `build` makes each request."""
    feed, order = _AsyncFeed(items, build, in_flight), InOrder()
    with connection.context:
        call = connection.stream_stream(STREAM_INFER, feed.bodies(), timeout_s)
        try:
            async for body in call:
                for answer in order.put(*read_stream_answer(body)):
                    feed.slots.release()
                    yield answer
        finally:
            call.cancel()
        if feed.failure:
            raise feed.failure
        order.check_complete(feed.sent, all_sent=feed.is_exhausted)


class _Feed:
    """The requests as gRPC's thread reads them.

    Attributes:
        slots: one for each request that may still be sent.
        failure: the exception of the caller's iterable; it raises in the caller.
        sent: number of requests read.
        is_exhausted: whether the iterable reached its end.
    """

    def __init__(self, requests: Iterable[pb.ModelInferRequest], in_flight: int) -> None:
        self.slots = threading.Semaphore(_require_slots(in_flight))
        self.failure: Exception | None = None
        self.sent = 0
        self.is_exhausted = False
        self._requests = iter(requests)
        self._is_closed = False

    def bodies(self) -> Iterator[bytes]:
        """The serialised requests, each once a slot is free."""
        while self.slots.acquire() and not self._is_closed:
            try:
                request = next(self._requests, None)
            except Exception as error:  # noqa: BLE001  the caller's own code, raised in the caller
                self.failure = error
                return
            if request is None:
                self.is_exhausted = True
                return
            request.id = str(self.sent)
            self.sent += 1
            yield request.SerializeToString()

    def close(self) -> None:
        """Wake gRPC's thread if it waits for a slot, so that it ends."""
        self._is_closed = True
        self.slots.release()


class _AsyncFeed(Generic[Item]):
    """The requests as grpc.aio's task reads them; attributes as of `_Feed`."""

    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        build: Callable[[Item], Awaitable[pb.ModelInferRequest]],
        in_flight: int,
    ) -> None:
        self.slots = asyncio.Semaphore(_require_slots(in_flight))
        self.failure: Exception | None = None
        self.sent = 0
        self.is_exhausted = False
        self._items = aiter(_each(items))
        self._build = build

    async def bodies(self) -> AsyncIterator[bytes]:
        """The serialised requests, each once a slot is free."""
        while await self.slots.acquire():
            try:
                request = await self._build(await anext(self._items))
            except StopAsyncIteration:
                self.is_exhausted = True
                return
            except Exception as error:  # noqa: BLE001  the caller's own code, raised in the caller
                self.failure = error
                return
            request.id = str(self.sent)
            self.sent += 1
            yield request.SerializeToString()


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _require_slots(in_flight: int) -> int:
    if in_flight < 1:
        raise UsageError(f"in_flight: expected 1 or more, got {in_flight}")
    return in_flight
