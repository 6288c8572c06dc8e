"""The gRPC channel of a client, blocking and asyncio, and the state that all its calls share."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, TypedDict, TypeVar

import grpc
from numpy.typing import ArrayLike

from weir.client import balancing, errors, rpc
from weir.client.credentials import (
    AUTHORIZATION,
    StrPath,
    Tls,
    TokenFile,
    authorization,
    channel_credentials,
    with_token,
)
from weir.client.errors import UsageError
from weir.client.results import ModelMetadata

Result = TypeVar("Result")
# Readiness calls that end so count as "not ready".
_NOT_READY = (errors.Unavailable, errors.NotFound, errors.DeadlineExceeded)


class Stream(Protocol):
    """An open call with a stream of responses."""

    def __iter__(self) -> Iterator[bytes]: ...

    def cancel(self) -> bool:
        """End the call."""


class CallOptions(TypedDict):
    """Arguments of every call to gRPC; a timeout of None means no deadline."""

    timeout: float | None
    metadata: tuple[tuple[str, str], ...]


class CallContext:
    """State shared by all calls of a client: credentials, metadata, timeout, metadata cache.

    `with context:` surrounds each call. It raises a gRPC failure as its `CallError`, and any
    `CallError` empties the metadata cache: another version with other tensors may serve by now.
    Threads need no lock: the cache is replaced, never emptied in place, so a lookup that holds the
    old cache finishes on it.
    """

    def __init__(
        self,
        target: balancing.Servers,
        *,
        timeout_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        tls: bool | Tls | None = None,
        token: str | None = None,
        token_file: StrPath | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if credentials is not None and tls is not None:
            raise UsageError("tls, credentials: expected one of them, got both")
        if token is not None and token_file is not None:
            raise UsageError("token, token_file: expected one of them, got both")
        self.target = balancing.parse(target)
        self.tls = Tls() if tls is True else tls or None
        self.credentials = credentials if self.tls is None else channel_credentials(self.tls)
        self.cache: dict[tuple[str, rpc.Version], ModelMetadata] = {}
        self._timeout_s = timeout_s
        self._authority = self.target.addresses[0]
        if self.credentials is not None and self.target.is_list:
            own_name = None if self.tls is None else self.tls.server_name
            self._authority = balancing.certificate_name(self.target, own_name)
        self._metadata = tuple((metadata or {}).items())
        self._token_file: TokenFile | None = None
        self._checks_health = True
        has_header = any(name.lower() == AUTHORIZATION for name, _ in self._metadata)
        if token is not None or token_file is not None:
            if has_header:
                raise UsageError(f"token, metadata: expected one {AUTHORIZATION}, got two")
            if self.credentials is None and tls is None and not self.target.is_local:
                raise UsageError(
                    "token: expected TLS (--tls) to another machine, got plaintext to "
                    f"{self.target.text}; tls=False (--no-tls) sends it all the same"
                )
            if token is not None:
                self._send_token(authorization(token, "token"))
            if token_file is not None:
                self._send_token(TokenFile(token_file))
        elif has_header:
            # gRPC's own health checks would not carry it.
            self._checks_health = False

    def _send_token(self, token: tuple[str, str] | TokenFile) -> None:
        """Send a token with each call, and with gRPC's own health checks if there is TLS."""
        if self.target.is_balanced and self.credentials is not None:
            self.credentials = with_token(self.credentials, token)
            return
        self._checks_health = False
        if isinstance(token, TokenFile):
            self._token_file = token
        else:
            self._metadata += (token,)

    def options(self, timeout_s: float | None = None, metadata: rpc.Metadata = ()) -> "CallOptions":
        """A call's arguments to gRPC; its own timeout goes before the client's."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        metadata = (*self._metadata, *metadata)
        if self._token_file is not None:
            metadata = (*metadata, self._token_file.header())
        return {"timeout": None if limit_s == math.inf else limit_s, "metadata": metadata}

    def channel_options(self, max_message_bytes: int) -> list[balancing.Option]:
        """The gRPC options of the channel."""
        options = balancing.channel_options(
            self.target,
            max_message_bytes,
            checks_health=self._checks_health,
            authority=self._authority,
        )
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, grpc.RpcError | errors.CallError):
            self.cache = {}
        if isinstance(error, grpc.RpcError):
            raise self.error_of(error) from error

    def error_of(self, failure: errors.Failure) -> errors.CallError:
        """The error of a failed call; see `errors.from_failure`."""
        return errors.from_failure(
            failure,
            self.target.proxy,
            is_tls=self.credentials is not None,
            servers=self.target.text if self.target.is_balanced else "",
        )


def open_channel(context: CallContext, max_message_bytes: int) -> grpc.Channel:
    """A blocking channel to the context's target."""
    options = context.channel_options(max_message_bytes)
    if context.credentials is None:
        return grpc.insecure_channel(context.target.uri, options)
    return grpc.secure_channel(context.target.uri, context.credentials, options)


class Connection:
    """A blocking channel; arguments as of `weir.Client`."""

    def __init__(self, context: CallContext, max_message_bytes: int) -> None:
        self.context = context
        self._channel = open_channel(context, max_message_bytes)

    def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        self._channel.close()

    def unary(self, call: rpc.Call[Result], timeout_s: float | None = None) -> Result:
        """Make a call and wait for its result."""
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        with self.context:
            return call.read(method(call.body, **self.context.options(timeout_s)))

    def submit(self, call: rpc.Call[Result], timeout_s: float | None) -> Future[Result]:
        """Start a call on gRPC's thread; cancelling the future before the response cancels it."""
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        running = method.future(call.body, **self.context.options(timeout_s))
        future: Future[Result] = Future()

        def cancel(done: Future[Result]) -> None:
            if done.cancelled():
                running.cancel()

        def finish(_: "grpc.Future[bytes]") -> None:
            # False if the future was cancelled: then nothing waits for the outcome.
            if not future.set_running_or_notify_cancel():
                return
            try:
                with self.context:
                    result = call.read(running.result())
            except grpc.FutureCancelledError:
                future.set_exception(errors.Cancelled("the client was closed"))
            except errors.WeirError as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        future.add_done_callback(cancel)
        running.add_done_callback(finish)
        return future

    def unary_stream(
        self, path: str, body: bytes, timeout_s: float | None, *, wait_for_ready: bool = False
    ) -> Stream:
        """Open a call with one request and a stream of responses."""
        method: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        return method(body, wait_for_ready=wait_for_ready, **self.context.options(timeout_s))

    def stream_stream(self, path: str, bodies: Iterator[bytes], timeout_s: float | None) -> Stream:
        """Open a call with a stream of requests and a stream of responses."""
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        return method(bodies, **self.context.options(timeout_s))

    def holds(self, call: rpc.Call[bool]) -> bool:
        """The result of a readiness call; False if the server or the model is not there."""
        try:
            return self.unary(call)
        except _NOT_READY:
            return False

    def watch(self, service: str, timeout_s: float | None) -> Generator[str, None, None]:
        """Yield the health of a service, now and at each change."""
        with self.context:
            call = self.unary_stream(
                rpc.WATCH, rpc.health_request(service), timeout_s, wait_for_ready=True
            )
            try:
                for body in call:
                    yield rpc.read_health(body)
            finally:
                call.cancel()

    def named(
        self, model: str, version: rpc.Version, inputs: rpc.Inputs
    ) -> Mapping[str, ArrayLike]:
        """Arrays by input name; fetches the model's metadata only for an array without a name."""
        if isinstance(inputs, Mapping):
            return inputs
        return rpc.only_input(self.metadata_of(model, version), inputs)

    def metadata_of(self, model: str, version: rpc.Version) -> ModelMetadata:
        """A model's tensors, from the cache or from the server."""
        cache, key = self.context.cache, (model, str(version))
        found = cache.get(key)
        if found is None:
            found = cache[key] = self.unary(rpc.metadata(model, version))
        return found


class AsyncConnection:
    """A channel of grpc.aio; arguments and methods as of `Connection`."""

    def __init__(self, context: CallContext, max_message_bytes: int) -> None:
        self.context = context
        options = context.channel_options(max_message_bytes)
        self._channel = (
            grpc.aio.insecure_channel(context.target.uri, options)
            if context.credentials is None
            else grpc.aio.secure_channel(context.target.uri, context.credentials, options)
        )
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        await self._channel.close()

    async def unary(
        self,
        call: rpc.Call[Result],
        timeout_s: float | None = None,
        metadata: rpc.Metadata = (),
    ) -> Result:
        """Make a call and wait for its result; `metadata` is sent beside the client's own."""
        method = self._methods.get(call.path)
        if method is None:
            method = self._methods[call.path] = self._channel.unary_unary(call.path)
        with self.context:
            return call.read(await method(call.body, **self.context.options(timeout_s, metadata)))

    def unary_stream(
        self,
        path: str,
        body: bytes,
        timeout_s: float | None,
        metadata: rpc.Metadata = (),
        *,
        wait_for_ready: bool = False,
    ) -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
        """Open a call with one request and a stream of responses; metadata as of `unary`."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        options = self.context.options(timeout_s, metadata)
        return method(body, wait_for_ready=wait_for_ready, **options)

    def stream_stream(
        self, path: str, bodies: AsyncIterator[bytes], timeout_s: float | None
    ) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
        """Open a call with a stream of requests and a stream of responses."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = self._channel.stream_stream(path)
        return method(bodies, **self.context.options(timeout_s))

    async def holds(self, call: rpc.Call[bool]) -> bool:
        """The result of a readiness call; False if the server or the model is not there."""
        try:
            return await self.unary(call)
        except _NOT_READY:
            return False

    async def watch(self, service: str, timeout_s: float | None) -> AsyncGenerator[str, None]:
        """Yield the health of a service, now and at each change."""
        with self.context:
            call = self.unary_stream(
                rpc.WATCH, rpc.health_request(service), timeout_s, wait_for_ready=True
            )
            try:
                async for body in call:
                    yield rpc.read_health(body)
            finally:
                call.cancel()

    async def named(
        self, model: str, version: rpc.Version, inputs: rpc.Inputs
    ) -> Mapping[str, ArrayLike]:
        """Arrays by input name; fetches the model's metadata only for an array without a name."""
        if isinstance(inputs, Mapping):
            return inputs
        return rpc.only_input(await self.metadata_of(model, version), inputs)

    async def metadata_of(self, model: str, version: rpc.Version) -> ModelMetadata:
        """A model's tensors, from the cache or from the server."""
        cache, key = self.context.cache, (model, str(version))
        found = cache.get(key)
        if found is None:
            found = cache[key] = await self.unary(rpc.metadata(model, version))
        return found
