"""`ModelStreamInfer`: several requests on one stream, each answered when it is done.

Rules:
- Answers carry the id of their request and may overtake each other.
- A request may get several answers. After the last one, or after a failure, it gets none.
- A failed request is answered with an error message, and the stream goes on. If the client sends
  the metadata `triton_grpc_error: true`, the failure ends the stream with its status instead.
- Backpressure: a stream has at most `_MAX_OPEN_REQUESTS` open requests, so a client that does not
  read its answers is not read from. Requests with several answers fail if the client does not read
  them (`BoundedSender`).
- The stream ends when the client sends no more and every answer is sent.
"""

import threading
from collections.abc import Callable
from typing import Any

import grpc

from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.protocol.message_limits import read_texts
from weir.server.protocol.request_decoder import check_id
from weir.server.protocol.response_encoder import as_streamed
from weir.server.telemetry.request_record import Reply, RequestRecord
from weir.server.transport.base import BoundedSender, Call, Metadata

_MAX_OPEN_REQUESTS = 128
_ID = pb.ModelInferRequest.ID_FIELD_NUMBER


Admit = Callable[
    [bytes, Reply, float | None, Callable[[Callable[[], None]], None], Callable[[bytes], bool]],
    None,
]
"""Admits a request; see `admission.Admission.admit`."""

InterceptReply = Callable[[Call, Reply, int], Reply]
"""Wraps the reply to a request of so many bytes; see `interceptor.Interceptor.intercept_reply`."""


class InferStream:
    """One open stream."""

    def __init__(self, call: Call, admit: Admit, intercept: InterceptReply | None = None) -> None:
        self._call = call
        self._admit = admit
        self._intercept = intercept
        self._ends_on_error = ("triton_grpc_error", "true") in call.metadata
        self._part_sender = BoundedSender(call)
        self._lock = threading.Lock()
        self._open_requests = 0
        self._is_receiving = False
        self._is_client_done = False
        self._has_failed = False
        self._cancels: dict[_StreamReply, Callable[[], None]] = {}

    def start(self) -> None:
        """Receive the first request."""
        self._call.on_close(self._closed)
        self._continue()

    @property
    def caller(self) -> Any:
        """The caller of the stream; see `authorization.Caller`."""
        return self._call.caller

    @property
    def cancelled(self) -> bool:
        """Whether the client is gone or the stream has ended."""
        return self._has_failed or self._call.cancelled

    def send(self, reply: "_StreamReply", message: bytes) -> bool:
        """Queue the last answer to a request; False if the client is gone."""
        with self._lock:
            self._cancels.pop(reply, None)
        if self.cancelled:
            return False
        self._call.send(message, self._sent)
        return True

    def send_part(self, message: bytes) -> bool:
        """Queue an answer that is not the last; False if the client is gone."""
        if self.cancelled:
            return False
        self._part_sender.send(message)
        return True

    def fail(
        self, reply: "_StreamReply", code: grpc.StatusCode, details: str, trailers: Metadata
    ) -> None:
        """Answer a request with its failure."""
        if self._ends_on_error:
            self._has_failed = True
            self._call.finish(code, details, trailers=trailers)
            self._closed()
            return
        response = pb.ModelStreamInferResponse(error_message=details)
        response.infer_response.id = reply.request_id()
        # The protocol has only a text here. Weir's clients take the status from this parameter.
        response.infer_response.parameters["grpc_status"].string_param = code.name
        self.send(reply, response.SerializeToString())

    def _received(self, payload: bytes | None) -> None:
        with self._lock:
            self._is_receiving = False
            self._is_client_done = payload is None
            self._open_requests += payload is not None
        if payload is not None:
            reply = _StreamReply(self, payload)
            intercepted: Reply = reply
            if self._intercept is not None:
                intercepted = self._intercept(self._call, reply, len(payload))
                reply.record = intercepted.record
            self._admit(
                payload,
                intercepted,
                self._call.time_left_s(),
                lambda cancel: self._admitted(reply, cancel),
                reply.send_part,
            )
        self._continue()

    def _admitted(self, reply: "_StreamReply", cancel: Callable[[], None]) -> None:
        with self._lock:
            if not reply.is_done:
                self._cancels[reply] = cancel
        if self._call.cancelled:
            cancel()

    def _sent(self) -> None:
        with self._lock:
            self._open_requests -= 1
        self._continue()

    def _continue(self) -> None:
        """Receive the next request, or end the stream, if either is due."""
        with self._lock:
            is_done = self._is_client_done and not self._open_requests
            receives = (
                not (self._is_client_done or self._is_receiving)
                and self._open_requests < _MAX_OPEN_REQUESTS
            )
            self._is_receiving |= receives
        if is_done:
            self._call.finish(grpc.StatusCode.OK)
        elif receives:
            self._call.receive(self._received)

    def _closed(self) -> None:
        with self._lock:
            cancels, self._cancels = self._cancels, {}
        for cancel in cancels.values():
            cancel()


class _StreamReply:
    """The reply to one request of a stream; see `request_record.Reply`."""

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
        """Send the last answer or the failure; False if the client is gone."""
        with self._lock:
            self.is_done = True
        if message is not None:
            return self._stream.send(self, as_streamed(message))
        self._stream.fail(self, code, details, trailers)
        return True

    def send_part(self, message: bytes) -> bool:
        """Send an answer that is not the last; False if the client is gone."""
        part = as_streamed(message, is_final=False)
        if self.record is not None:
            self.record.response_bytes += len(part)
        # Sent under the lock: a deadline may end the request on another thread, and no part may
        # follow its end.
        with self._lock:
            return not self.is_done and self._stream.send_part(part)

    @property
    def caller(self) -> Any:
        """The caller of the stream."""
        return self._stream.caller

    @property
    def cancelled(self) -> bool:
        """Whether the client is gone or the stream has ended."""
        return self._stream.cancelled

    def request_id(self) -> str:
        """The id of the request, read without parsing the message; empty if it cannot be read."""
        try:
            (request_id,) = read_texts(self._payload, _ID)
            check_id(request_id)
        except InvalidRequest:
            return ""
        return request_id
