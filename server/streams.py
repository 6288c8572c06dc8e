"""`ModelStreamInfer`: several requests on one stream, answered as they get done.

Rules:
- Answers are matched by id, and may overtake each other.
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

from server.inference import Reply, check_size
from server.pb import inference_pb2 as pb
from server.statuses import Refusal
from server.transport.call import Call

_WINDOW = 128


class Admit(Protocol):
    """Checks and queues a request; see `inference.Admission.admit`."""

    def __call__(
        self,
        payload: bytes,
        reply: Reply,
        time_left_s: float | None,
        admitted: Callable[[Callable[[], None]], None],
    ) -> None:
        """Answer through `reply`, now or later."""


class InferStream:
    """One open stream.

    Args:
        call: the stream.
        admit: takes each request.
        max_message_bytes: of one answer.
    """

    def __init__(self, call: Call, admit: Admit, max_message_bytes: int) -> None:
        self._call = call
        self._admit = admit
        self.max_message_bytes = max_message_bytes
        self._ends_on_error = ("triton_grpc_error", "true") in call.metadata
        self._lock = threading.Lock()
        self._open = 0
        self._is_receiving = False
        self._has_ended = False
        self._cancels: dict[_StreamReply, Callable[[], None]] = {}

    def start(self) -> None:
        """Ask for the first request."""
        self._call.on_close(self._closed)
        self._go_on()

    def send(self, reply: "_StreamReply", response: pb.ModelStreamInferResponse) -> bool:
        """Queue the answer to one request; False if nobody waits."""
        with self._lock:
            self._cancels.pop(reply, None)
        self._call.send(response.SerializeToString(), self._sent)
        return not self._call.cancelled

    def refuse(self, reply: "_StreamReply", request_id: str, refusal: Refusal) -> None:
        """Answer one request with its failure."""
        if self._ends_on_error:
            self._call.finish(refusal.code, refusal.details, trailers=refusal.trailers)
            self._closed()
            return
        response = pb.ModelStreamInferResponse(error_message=refusal.details)
        response.infer_response.id = request_id
        self.send(reply, response)

    def _received(self, payload: bytes | None) -> None:
        with self._lock:
            self._is_receiving = False
            self._has_ended = payload is None
            self._open += payload is not None
        if payload is not None:
            reply = _StreamReply(self)
            self._admit(
                payload,
                reply,
                self._call.time_left_s(),
                lambda cancel: self._admitted(reply, cancel),
            )
        self._go_on()

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
    """Where the answer to one request of a stream goes."""

    def __init__(self, stream: InferStream) -> None:
        self._stream = stream
        self.is_done = False

    def answer(self, response: pb.ModelInferResponse) -> bool:
        """Send it; False if nobody waits."""
        response.parameters["triton_final_response"].bool_param = True
        message = pb.ModelStreamInferResponse(infer_response=response)
        check_size(message.SerializeToString(), self._stream.max_message_bytes)
        self.is_done = True
        return self._stream.send(self, message)

    def refuse(self, request_id: str, refusal: Refusal) -> None:
        """Send why there is no answer."""
        self.is_done = True
        self._stream.refuse(self, request_id, refusal)
