"""One HTTP connection: uvicorn's protocol, with limits that it lacks.

- A request's line and headers are bounded in bytes, in number and in time (431, 408).
- A body arrives at a minimum rate (408). The framing of its chunks is bounded too (400).
- A connection without a request is closed after a while, the first request included.
- A client that does not read its answer loses its connection.
- At the limit of connections, those that have waited longest for a request are closed. If there is
  none, the new one is refused (503).
- Answers are in the order of the requests: bytes that are refused behind open requests close the
  connection after the answers of those.
- If the client leaves, the task of its request is cancelled, and with it the call of the server.
- Trailers are dropped: they are no headers.
"""

import asyncio
import logging
import resource
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from weir.gateway.errors import Refused, error_content

logger = logging.getLogger(__name__)

# Files of the process that are no connections: the log, the channel, the listener.
_RESERVED_FILES = 64
# Framing of a body in chunks of one byte is five bytes a byte.
_FRAMING_BYTES = 8
_EVICTED_SHARE = 10


def _max_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - min(_RESERVED_FILES, soft // 4))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of each connection.

    Attributes:
        header_bytes: largest request line and headers.
        headers: largest number of headers.
        receive_s: time of the headers to arrive, and each part of a body.
        body_bytes_per_s: smallest rate of a body, over each `receive_s`.
        idle_s: time without a request.
        unread_s: time in which a client reads nothing of its answer.
        linger_s: time that a refused client may go on sending, to read the answer.
        connections: largest number of them, by default what the limit of files allows.
    """

    header_bytes: int = 64 * 1024
    headers: int = 256
    receive_s: float = 20.0
    body_bytes_per_s: int = 16_384
    idle_s: float = 75.0
    unread_s: float = 60.0
    linger_s: float = 5.0
    connections: int = field(default_factory=_max_connections)


class HttpConnection(HttpToolsProtocol):
    """A connection of uvicorn; see the module."""

    flow: FlowControl

    def __init__(self, limits: ConnectionLimits, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        # The request whose task runs; `cycle` is the one that was parsed last.
        self._answered: RequestResponseCycle | None = None
        self._is_receiving = False
        self._has_headers = False
        self._is_refused = False
        # Bytes that arrived while requests before them were open.
        self._behind = bytearray()
        self._message_bytes = 0
        self._body_bytes = 0
        self._checked_bytes = 0
        self._waits_since_s = 0.0
        self._receive_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a request has arrived, at least its headers, and is not answered."""
        return self._answered is not None and not self._answered.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the idle timeout; refuse the connection if there are too many."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # A client that is gone without a word, while nothing is written.
            limit_ms = round(1000 * self._limits.unread_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        self._wait_for_request()
        if len(self.connections) > self._limits.connections and not self._evict():
            transport.write(_refusal(503, f"expected {self._limits.connections} connections"))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that is being answered, and drop those behind it."""
        super().connection_lost(exc)
        self._stop_receive_timer()
        self._stop_write_timer()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        self._cancel()

    def data_received(self, data: bytes) -> None:
        """Parse bytes, or keep them until the requests before them are answered.

        Reading goes on meanwhile: only so is it noticed that the client leaves.
        """
        if self._is_refused:
            return
        if self.is_answering and (self.pipeline or not self._is_receiving):
            self._behind += data
            if len(self._behind) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            return
        self._parse(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._is_receiving = True
        self._has_headers = False
        self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if self._has_headers:
            return
        if len(self.headers) == self._limits.headers:
            raise Refused(431, f"headers: expected at most {self._limits.headers}")
        name = name.lower()
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise Refused(501, "Transfer-Encoding: expected chunked")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The headers have arrived; a body may follow."""
        # More may have arrived, so the sum is worth its time only then.
        if self._message_bytes > self._limits.header_bytes:
            sizes = (len(name) + len(value) for name, value in self.headers)
            if len(self.url) + sum(sizes) > self._limits.header_bytes:
                raise Refused(431, self._headers_too_large)
        if self.parser.should_upgrade() and any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self.headers
        ):
            # The parser skips such a body, and would take it for the next request.
            raise Refused(400, "Upgrade: expected a request without a body")
        super().on_headers_complete()
        self._has_headers = True
        if self.pipeline:
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request has arrived whole."""
        self._is_receiving = False
        self._message_bytes = 0
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """The answer is written; a body that is still being sent is dropped, for a while."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._waits_since_s = self.loop.time()
        if self._is_receiving:
            self._unset_keepalive_if_required()
            if self._has_headers and self.cycle.response_complete:
                self._start_receive_timer(self._limits.linger_s)
        if self._behind and not self.pipeline:
            data, self._behind = bytes(self._behind), bytearray()
            self.data_received(data)

    def pause_writing(self) -> None:
        """The client reads slower than the answer is written: it must not stop."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._limits.unread_s, self._abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._stop_write_timer()

    def eof_received(self) -> None:
        """The client sends no more: it has left, as for most servers."""

    def timeout_keep_alive_handler(self) -> None:
        """The idle timeout: a client that has not even read its last answer is cut off."""
        if self.transport.get_write_buffer_size():
            self._abort()
        else:
            self.transport.close()

    def stop(self) -> None:
        """Refuse a request that is still being received: the gateway stops."""
        if self._is_receiving and not self._is_refused and not self.transport.is_closing():
            self._refuse(503, "the gateway stops")

    def _parse(self, data: bytes) -> None:
        """Parse bytes, and check what has arrived of the request against the limits."""
        self._message_bytes += len(data)
        try:
            self.parser.feed_data(data)
            if self._is_receiving:
                self._check_size()
        except httptools.HttpParserUpgrade:
            # Bytes behind a request to change the protocol are of no known protocol.
            self._close_after_answers()
        except httptools.HttpParserError as error:
            refused = error.__context__
            if not isinstance(refused, Refused):
                refused = Refused(400, "request: expected HTTP/1.1")
            self._refuse(refused.code, str(refused))
        except Refused as refused:
            self._refuse(refused.code, str(refused))
        if self._is_refused or self.transport.is_closing():
            return
        if not self._is_receiving:
            self._stop_receive_timer()
            self._message_bytes = 0
            self._wait_for_request()
        elif self._receive_timer is None:
            self._start_receive_timer(self._limits.receive_s)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # As uvicorn's, which keeps no reference to the task of one connection.
        self._answered = cycle
        task = self.loop.create_task(self._answer(cycle, app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._task = task

    async def _answer(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Run the application for one request.

        In place of `cycle.run_asgi`, for which a client that left is an error to be logged.
        """
        try:
            await app(cycle.scope, cycle.receive, cycle.send)
        except (asyncio.CancelledError, ClientDisconnect):
            # The client left or was refused, or the gateway stops.
            if not cycle.disconnected and not self.transport.is_closing():
                self._abort()
        except Exception:
            logger.exception("request failed path=%.256r", cycle.scope["path"])
            if cycle.response_started:
                self._abort()
            elif not cycle.disconnected:
                self.transport.write(_refusal(500, "internal error of the gateway"))
                self.transport.close()
        else:
            if not cycle.response_complete and not cycle.disconnected:
                logger.error("answer incomplete path=%.256r", cycle.scope["path"])
                self._abort()
        finally:
            # As uvicorn does: the cycle and the connection refer to each other.
            cycle.on_response = lambda: None

    def _cancel(self) -> None:
        """End the task of the request that is being answered."""
        cycle, task = self._answered, self._task
        if cycle is not None and task is not None and not cycle.response_complete:
            cycle.disconnected = True
            task.cancel()

    def _wait_for_request(self) -> None:
        """Start the idle timeout, unless a request is open."""
        if not self.is_answering and self.timeout_keep_alive_task is None:
            self._waits_since_s = self.loop.time()
            self.timeout_keep_alive_task = self.loop.call_later(
                self._limits.idle_s, self.timeout_keep_alive_handler
            )

    def _start_receive_timer(self, limit_s: float) -> None:
        self._stop_receive_timer()
        self._checked_bytes = self._message_bytes
        self._receive_timer = self.loop.call_later(limit_s, self._check_receiving)

    def _stop_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _check_receiving(self) -> None:
        """Refuse a request that has not arrived in time, or go on waiting for its body."""
        self._receive_timer = None
        limits = self._limits
        is_behind_another = self.is_answering and not (
            self._has_headers and self._answered is self.cycle
        )
        if self._is_refused or (self._has_headers and self.cycle.response_complete):
            self._abort()
        elif self.flow.read_paused or is_behind_another:
            self._start_receive_timer(limits.receive_s)
        elif not self._has_headers:
            self._refuse(408, f"headers: expected them within {limits.receive_s:g} s")
        elif self._message_bytes - self._checked_bytes < limits.body_bytes_per_s * limits.receive_s:
            self._refuse(408, f"body: expected at least {limits.body_bytes_per_s} bytes/s")
        else:
            self._start_receive_timer(limits.receive_s)

    def _check_size(self) -> None:
        """Bound what has arrived of a request, apart from the body itself."""
        framing_bytes = self._message_bytes - self._body_bytes
        if not self._has_headers and framing_bytes > self._limits.header_bytes:
            raise Refused(431, self._headers_too_large)
        if framing_bytes > self._limits.header_bytes + _FRAMING_BYTES * self._body_bytes:
            raise Refused(400, "body: expected chunks that are larger than their framing")

    @property
    def _headers_too_large(self) -> str:
        return f"headers: expected at most {self._limits.header_bytes} bytes"

    def _refuse(self, code: int, message: str) -> None:
        """Answer what is being received with an error, and close the connection.

        Nothing is read any more. If other requests are open, they alone are answered.
        """
        refused = self.cycle if self._is_receiving and self._has_headers else None
        if self.is_answering and self._answered is not refused:
            if refused is not None:
                # The newest is at the left.
                self.pipeline.popleft()
            self._close_after_answers()
            return
        self._is_refused = True
        if refused is not None and refused.response_started:
            self._abort()
            return
        self._cancel()
        self._unset_keepalive_if_required()
        self.transport.write(_refusal(code, message))
        if self.transport.can_write_eof():
            # If the connection were closed with bytes unread, its client might not see the answer.
            self.transport.write_eof()
            self._start_receive_timer(self._limits.linger_s)
        else:
            self.transport.close()

    def _close_after_answers(self) -> None:
        """Read nothing more, and close the connection when the open requests are answered."""
        self._is_refused = True
        self._stop_receive_timer()
        if not self.is_answering:
            self.transport.close()
            return
        last = self.pipeline[0][0] if self.pipeline else self._answered
        if last is not None:
            last.keep_alive = False

    def _evict(self) -> bool:
        """Close the connections that have waited longest for a request; whether there were any."""
        others = [
            connection
            for connection in self.connections
            if isinstance(connection, HttpConnection)
            and connection is not self
            and not connection.transport.is_closing()
        ]
        if len(others) < self._limits.connections:
            return True
        waiting = [connection for connection in others if not connection.is_answering]
        waiting.sort(key=lambda connection: connection._waits_since_s)  # noqa: SLF001 - its own class
        for connection in waiting[: max(1, len(waiting) // _EVICTED_SHARE)]:
            connection.transport.abort()
        return bool(waiting)

    def _abort(self) -> None:
        self.transport.abort()


def _refusal(code: int, message: str) -> bytes:
    """A whole response that is an error."""
    content = orjson.dumps(error_content(Refused(code, message)))
    line = STATUS_LINE[HTTPStatus(code)]
    return (
        b"%bcontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
        % (line, len(content), content)
    )
