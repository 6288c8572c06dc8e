"""Calls of the servers behind the gateway, on behalf of HTTP requests.

A call carries the request's token and trace context, and ends at the request's deadline. It is
cancelled with the task of its request, which ends when the HTTP client leaves.
"""

import asyncio
import logging
import math
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from weir.client import rpc
from weir.client.connection import AsyncConnection, CallContext
from weir.client.errors import (
    CallError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Unauthenticated,
    Unavailable,
)
from weir.gateway.body import BodyBudget
from weir.gateway.metrics import RequestMetrics
from weir.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_LOOK_S = 5.0
_STOPS = "the gateway stops"
_TIMEOUT = b"x-request-timeout"
_AUTHORIZATION = b"authorization"
_PASSED_ON = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")
# gRPC takes nothing else in metadata.
_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,8192}")
# Beside its tensors, a message has names and shapes.
_MESSAGE_OVERHEAD_BYTES = 1 << 20
# Bodies of the largest size that may be in memory at the same time.
_BODIES = 8


class Upstream:
    """The channel to the servers; opened on the event loop that uses it."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._context = CallContext(settings.target, timeout_s=settings.timeout_s, tls=settings.tls)
        self._connection: AsyncConnection | None = None
        self._sends_tokens = bool(self._context.credentials) or (
            self._context.target.is_local or settings.tls is False
        )

    @property
    def target(self) -> str:
        """The servers' addresses, as messages name them."""
        return self._context.target.text

    def open(self) -> None:
        """Open the channel."""
        limit_bytes = self._settings.max_body_bytes + _MESSAGE_OVERHEAD_BYTES
        self._connection = AsyncConnection(self._context, limit_bytes)

    async def look(self) -> None:
        """Log a warning if no server answers now; one that does later is found."""
        try:
            await self._open_connection.unary(rpc.server_live(), _LOOK_S, ())
        except (DeadlineExceeded, Unavailable) as error:
            logger.warning("no server answers target=%s cause=%s", self.target, error)
        except CallError:
            # A server that refuses the call answers.
            pass

    async def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def unary(
        self, request: Request, call: rpc.Call[Result], timeout_s: float | None = None
    ) -> Result:
        """Make a call for a request and wait for its result.

        Args:
            timeout_s: timeout of a request that sets none itself.

        Raises:
            CallError: it failed.
        """
        chosen_s, metadata = self._options(request)
        connection = self._open_connection
        try:
            return await connection.unary(
                call, timeout_s if chosen_s is None else chosen_s, metadata
            )
        except asyncio.CancelledError:
            self._check_open()
            raise

    async def stream(self, request: Request, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Make a call with a stream of responses and yield their bytes.

        Raises:
            CallError: it failed.
        """
        timeout_s, metadata = self._options(request)
        connection = self._open_connection
        with connection.context:
            call = connection.unary_stream(path, body, timeout_s, metadata)
            try:
                async for message in call:
                    yield message
            except asyncio.CancelledError:
                self._check_open()
                raise
            finally:
                call.cancel()

    @property
    def _open_connection(self) -> AsyncConnection:
        if self._connection is None:
            raise Unavailable(_STOPS)
        return self._connection

    def _check_open(self) -> None:
        """A closed channel cancels its calls: for their requests it is no cancellation."""
        if self._connection is None:
            raise Unavailable(_STOPS)

    def _options(self, request: Request) -> tuple[float | None, rpc.Metadata]:
        """The timeout that the request sets, and the metadata that its calls carry."""
        timeout_s = None
        metadata: list[tuple[str, str]] = []
        for name, value in request.scope["headers"]:
            if name == _TIMEOUT:
                timeout_s = _seconds(value)
            elif name == _AUTHORIZATION:
                if any(key == "authorization" for key, _ in metadata):
                    raise InvalidArgument("authorization: expected one header, got several")
                metadata.append(("authorization", self._authorization(value)))
            elif name in _PASSED_ON and _PRINTABLE.fullmatch(value):
                metadata.append((_PASSED_ON[name], value.decode("ascii")))
        return timeout_s, tuple(metadata)

    def _authorization(self, value: bytes) -> str:
        if not self._sends_tokens:
            raise FailedPrecondition(
                "authorization: the gateway sends no token in plaintext to another machine; start "
                "it with --tls, or with --no-tls to send tokens all the same"
            )
        if not _PRINTABLE.fullmatch(value):
            raise Unauthenticated("authorization: expected printable ASCII")
        return value.decode("ascii")


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the routes share."""

    settings: GatewaySettings
    upstream: Upstream
    budget: BodyBudget
    metrics: RequestMetrics


def build(settings: GatewaySettings) -> Gateway:
    """The gateway of some settings; its channel is opened later."""
    budget = BodyBudget(_BODIES * settings.max_body_bytes)
    metrics = RequestMetrics(lambda: budget.used_bytes)
    return Gateway(settings, Upstream(settings), budget, metrics)


def _seconds(value: bytes) -> float:
    seconds = float(value) if _SECONDS.fullmatch(value) else math.nan
    if not seconds > 0:
        text = value[:64].decode("ascii", errors="replace")
        raise InvalidArgument(f"X-Request-Timeout: expected seconds above 0, got {text!r}")
    return seconds
