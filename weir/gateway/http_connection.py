"""One HTTP connection: uvicorn's protocol, with limits that it lacks.

- A request's line and headers have at most MAX_HEADER_BYTES (431).
- A request arrives within a time that grows with its bytes (408): a client that sends slower holds
  its connection and nothing else, and not for long.
- A connection without a request is closed after IDLE_S, the first request included.
- A client that does not read its answer is dropped by the kernel after UNREAD_S.
- When the client leaves, the task of its request is cancelled, and with it the call of the server.
"""

import asyncio
import socket
from typing import Any

import orjson
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from weir.gateway.errors import Refused, error_content

MAX_HEADER_BYTES = 64 * 1024
IDLE_S = 75
UNREAD_S = 60
RECEIVE_S = 30.0
"""Time that every request has to arrive; MIN_BYTES_PER_S adds to it."""
MIN_BYTES_PER_S = 16_384
# A client that is refused before its body is sent may send so long, to read the answer.
_LINGER_S = 5.0


class HttpConnection(HttpToolsProtocol):
    """A connection of uvicorn; see the module."""

    flow: FlowControl

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._task: asyncio.Task[None] | None = None
        self._is_receiving = False
        self._has_headers = False
        self._message_bytes = 0
        self._receive_end_s = 0.0
        self._receive_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the idle timeout."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Also while the client's window is closed: an answer that is not read ends here.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_S)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that is being answered."""
        super().connection_lost(exc)
        self._stop_receive_timer()
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete and self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and check what has arrived of the request against the limits."""
        self._message_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._is_receiving:
            self._stop_receive_timer()
            self._message_bytes = 0
            self._wait_for_request()
        elif not self._has_headers and self._message_bytes > MAX_HEADER_BYTES:
            self._refuse(431, f"headers: expected at most {MAX_HEADER_BYTES} bytes")
        elif self._receive_timer is None:
            self._start_receive_timer(RECEIVE_S)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_receiving = True
        self._has_headers = False

    def on_headers_complete(self) -> None:
        """The headers have arrived; a body may follow."""
        self._has_headers = True
        header_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if header_bytes > MAX_HEADER_BYTES:
            self._refuse(431, f"headers: expected at most {MAX_HEADER_BYTES} bytes")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived whole."""
        self._is_receiving = False
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written; a body that is still being sent is dropped, for a while."""
        super().on_response_complete()
        if self._is_receiving and not self.transport.is_closing():
            self._stop_receive_timer()
            self._start_receive_timer(_LINGER_S)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        if not self.transport.is_closing():
            self._refuse(400, msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # As uvicorn's, which keeps no reference to the task of one connection.
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._task = task

    def _wait_for_request(self) -> None:
        """Start the idle timeout, unless a request is being answered."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                IDLE_S, self.timeout_keep_alive_handler
            )

    def _start_receive_timer(self, limit_s: float) -> None:
        self._receive_end_s = self.loop.time() + limit_s
        self._receive_timer = self.loop.call_at(self._receive_end_s, self._check_receiving)

    def _stop_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _check_receiving(self) -> None:
        """Refuse the request if it arrives too slowly; look again later if it does not."""
        is_answered = self.cycle is not None and self.cycle.response_complete and self._has_headers
        end_s = self._receive_end_s + (0 if is_answered else self._message_bytes / MIN_BYTES_PER_S)
        if self.loop.time() < end_s:
            self._receive_timer = self.loop.call_at(end_s, self._check_receiving)
        elif is_answered:
            self.transport.close()
        else:
            self._refuse(
                408, f"request: expected it within {RECEIVE_S:g} s and {MIN_BYTES_PER_S} bytes/s"
            )

    def _refuse(self, code: int, message: str) -> None:
        """Answer with an error, unless an answer has begun, and close the connection."""
        cycle = self.cycle
        is_open = cycle is not None and not cycle.response_complete
        if not (is_open and cycle.response_started):
            content = orjson.dumps(error_content(Refused(code, message)))
            self.transport.write(
                b"%bcontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n"
                b"\r\n%b" % (STATUS_LINE[code], len(content), content)
            )
        self._stop_receive_timer()
        # `connection_lost` follows, and cancels the request's task.
        self.transport.close()
