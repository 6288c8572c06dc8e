"""`ModelStreamInfer`: several requests on one stream, answered as they get done.

Rules:
- Answers are matched by id, and may overtake each other.
- A request may get several; after the last, or after a failure, it gets nothing. If the client does not read
  them, those that go on fail (`backpressure`).
- A request that fails is answered with an error message; the stream goes on. A client that sends the
  metadata `triton_grpc_error: true` gets the status instead, which ends its stream.
- At most `_WINDOW` requests of a stream are open, so a client that does not read its answers is not
  read from either.
- The stream ends once the client has no more to send and every answer is out.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import grpc

from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.protocol.request_decoder import check_id, parse_request
from weir.server.protocol.response_encoder import as_streamed
from weir.server.telemetry.request_record import Reply, RequestRecord
from weir.server.transport.backpressure import BoundedSender
from weir.server.transport.base import Call, Metadata

_WINDOW = 128


class Admit(Protocol):
    """Checks and queues a request; see `admission.Admission.admit`."""

    def __call__(
        self,
        payload: bytes,
        reply: Reply,
        time_left_s: float | None,
        admitted: Callable[[Callable[[], None]], None],
        send: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Answer through `reply`, now or later."""


Follow = Callable[[Call, Reply, int], Reply]
"""Follows one request of so many bytes; see `following.Interceptor.reply`."""


class InferStream:
    """One open stream.

    Args:
        call: the stream.
        admit: takes each request.
        follow: what its requests are followed by; None: nobody wants to hear of them.
    """

    def __init__(self, call: Call, admit: Admit, follow: Follow | None = None) -> None:
        self._call = call
        self._admit = admit
        self._follow = follow
        self._ends_on_error = ("triton_grpc_error", "true") in call.metadata
        self._parts = BoundedSender(call)
        self._lock = threading.Lock()
        self._open = 0
        self._is_receiving = False
        self._has_ended = False
        self._is_over = False
        self._cancels: dict[_StreamReply, Callable[[], None]] = {}

    def start(self) -> None:
        """Ask for the first request."""
        self._call.on_close(self._closed)
        self._go_on()

    @property
    def cancelled(self) -> bool:
        """Whether nobody reads this stream any longer."""
        return self._is_over or self._call.cancelled

    def send(self, reply: "_StreamReply", message: bytes) -> bool:
        """Queue the answer to one request; False if nobody waits."""
        with self._lock:
            self._cancels.pop(reply, None)
        if self.cancelled:
            return False
        self._call.send(message, self._sent)
        return True

    def send_part(self, message: bytes) -> bool:
        """Queue one of several answers to a request, not the last; False if nobody waits.

        Raises:
            ClientTooSlow: the client does not read.
        """
        if self.cancelled:
            return False
        self._parts.send(message)
        return True

    def refuse(
        self, reply: "_StreamReply", code: grpc.StatusCode, details: str, trailers: Metadata
    ) -> None:
        """Answer one request with its failure."""
        if self._ends_on_error:
            self._is_over = True
            self._call.finish(code, details, trailers=trailers)
            self._closed()
            return
        response = pb.ModelStreamInferResponse(error_message=details)
        response.infer_response.id = reply.request_id()
        # The protocol has only a text here; clients that know this parameter raise the right error.
        response.infer_response.parameters["grpc_status"].string_param = code.name
        self.send(reply, response.SerializeToString())

    def _received(self, payload: bytes | None) -> None:
        with self._lock:
            self._is_receiving = False
            self._has_ended = payload is None
            self._open += payload is not None
        if payload is not None:
            reply = _StreamReply(self, payload)
            self._admit(
                payload,
                self._followed(reply, len(payload)),
                self._call.time_left_s(),
                lambda cancel: self._admitted(reply, cancel),
                reply.send_part,
            )
        self._go_on()

    def _followed(self, reply: "_StreamReply", request_bytes: int) -> Reply:
        if self._follow is None:
            return reply
        followed = self._follow(self._call, reply, request_bytes)
        reply.record = followed.record
        return followed

    def _admitted(self, reply: "_StreamReply", cancel: Callable[[], None]) -> None:
        with self._lock:
            if not reply.is_done:
                self._cancels[reply] = cancel
        if self._call.cancelled:
            cancel()

    def _sent(self) -> None:
        with self._lock:
            self._open -= 1
        self._go_on()

    def _go_on(self) -> None:
        """Ask for the next request, or end the stream, if it is time for either."""
        with self._lock:
            is_over = self._has_ended and not self._open
            asks = not (self._has_ended or self._is_receiving) and self._open < _WINDOW
            self._is_receiving |= asks
        if is_over:
            self._call.finish(grpc.StatusCode.OK)
        elif asks:
            self._call.receive(self._received)

    def _closed(self) -> None:
        with self._lock:
            cancels, self._cancels = self._cancels, {}
        for cancel in cancels.values():
            cancel()


class _StreamReply:
    """Where the answer to one request of a stream goes; see `pending.Reply`."""

    record: RequestRecord | None = None

    def __init__(self, stream: InferStream, payload: bytes) -> None:
        self._stream = stream
        self._payload = payload
        self._lock = threading.Lock()
        self.is_done = False

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send the answer, or the failure; False if nobody waits."""
        with self._lock:
            self.is_done = True
        if message is not None:
            return self._stream.send(self, as_streamed(message))
        self._stream.refuse(self, code, details, trailers)
        return True

    def send_part(self, message: bytes) -> bool:
        """Send one of several answers, not the last; False if nobody waits."""
        part = as_streamed(message, is_final=False)
        if self.record is not None:
            self.record.response_bytes += len(part)
        # Sent under the lock: a deadline ends a request from another thread, and no part may follow that.
        with self._lock:
            return not self.is_done and self._stream.send_part(part)

    @property
    def cancelled(self) -> bool:
        """Whether the stream's caller is gone."""
        return self._stream.cancelled

    def request_id(self) -> str:
        """The id of the request that failed, as far as it can be read."""
        try:
            request_id = parse_request(self._payload).id
            check_id(request_id)
        except InvalidRequest:
            return ""
        return request_id
