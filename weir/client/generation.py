"""An answer that is being made."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol, Self

import grpc

from weir.client import errors
from weir.client.generating import no_result, read_message
from weir.client.results import Generated, GeneratedToken


class Stream(Protocol):
    """What an open call of grpc is to its caller."""

    def __iter__(self) -> Iterator[bytes]: ...

    def cancel(self) -> bool:
        """Let the server stop."""


class Generation:
    """An answer as it is made: iterate over its tokens, or take the `result`, or both.

    Tokens come where there is one hypothesis and no beam. One that nobody holds any longer is
    cancelled.

    Args:
        call: the stream, just opened.
    """

    def __init__(self, call: Stream) -> None:
        self._call = call
        self._bodies = iter(call)
        self._result: Generated | None = None

    def __iter__(self) -> Iterator[GeneratedToken]:
        return self

    def __next__(self) -> GeneratedToken:
        """The next token; what fails raises a leaf of `weir.CallError`."""
        if self._result is not None:
            raise StopIteration
        try:
            body = next(self._bodies, None)
        except grpc.RpcError as error:
            raise errors.from_failure(error) from error
        if body is None:
            raise no_result()
        message = read_message(body)
        if isinstance(message, GeneratedToken):
            return message
        self._result = message
        # Only the status is left. Let go of before it came, the call would count as cancelled.
        with suppress(grpc.RpcError):
            next(self._bodies, None)
        raise StopIteration

    def result(self) -> Generated:
        """All of it, once it is there; tokens that nobody took until then are passed over."""
        for _ in self:
            pass
        if self._result is None:
            raise no_result()
        return self._result

    def cancel(self) -> None:
        """Let the server stop."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class AsyncGeneration:
    """The same for asyncio.

    Args:
        call: the stream, just opened.
    """

    def __init__(self, call: "grpc.aio.UnaryStreamCall[bytes, bytes]") -> None:
        self._call = call
        self._bodies = aiter(call)
        self._result: Generated | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GeneratedToken:
        """The next token."""
        if self._result is not None:
            raise StopAsyncIteration
        try:
            body = await anext(self._bodies, None)
        except grpc.aio.AioRpcError as error:
            raise errors.from_failure(error) from error
        if body is None:
            raise no_result()
        message = read_message(body)
        if isinstance(message, GeneratedToken):
            return message
        self._result = message
        with suppress(grpc.aio.AioRpcError):
            await anext(self._bodies, None)
        raise StopAsyncIteration

    async def result(self) -> Generated:
        """All of it, once it is there."""
        async for _ in self:
            pass
        if self._result is None:
            raise no_result()
        return self._result

    def cancel(self) -> None:
        """Let the server stop."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
