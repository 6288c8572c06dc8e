"""A request for answers of an encoder-decoder, from its tensors to its reply.

A unary call gets one answer. On a stream, a request of one row that is not searched with a beam gets an answer for each
token, and a final one with what is left: nothing but its score.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import grpc

from weir.protocol import inference_pb2 as pb
from weir.server.errors import Cancelled, InvalidRequest
from weir.server.generation.answers import Parts, encode_rows
from weir.server.generation.parameters import read_search
from weir.server.generation.row import Row, note
from weir.server.generation.served import ServedPair, check_search
from weir.server.protocol import request_decoder
from weir.server.scheduling.request import CLOSED_REPLY, ReceivedRequest
from weir.server.telemetry.request_record import Reply
from weir.server.transport.status import REASON_OF, status_of


def _encode_nothing(_: Sequence[Row]) -> bytes:
    return b""


class PairRequest:
    """A request on its way through an engine; see `row.GenerationRequest`.

    Args:
        model: whose engine.
        reply: where the answer goes.
        sources: its rows.
        encode: writes the answer, of the rows, all of which have ended.
        queued_s: since when only the model is waited for.
        deadline_s: when its time is over.
        request_bytes: of the message.
        clock: of these times.
    """

    def __init__(
        self,
        model: ServedPair,
        reply: Reply,
        *,
        sources: Sequence[Row],
        encode: Callable[[Sequence[Row]], bytes],
        queued_s: float,
        deadline_s: float,
        request_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self.sources = sources
        self.rows = len(sources)
        self.key: Hashable = ()
        self.length = max(row.length for row in sources)
        self.arrived_s = sources[0].arrived_s
        self.queued_s = queued_s
        self.deadline_s = deadline_s
        self.is_answered = False
        self.request_bytes = request_bytes
        self._answer_bytes = 0
        self._clock = clock
        self._encode = encode
        self._model = model
        self._reply: Reply = reply
        self.record = reply.record
        if self.record is not None:
            self.record.queued(
                model.name,
                model.version,
                rows=self.rows,
                length=self.length,
                arrived_s=self.arrived_s,
                queued_s=queued_s,
            )
        for row in sources:
            row.owner = self

    @property
    def response_bytes(self) -> int:
        """Of what was sent of its answer."""
        return self._answer_bytes + sum(row.sent_bytes for row in self.sources)

    def submit(self) -> None:
        """Queue it for its model.

        Raises:
            Overloaded: it does not fit into the queue.
            Draining: the model is being unloaded.
        """
        self._model.scheduler.submit(self)

    def answer(self) -> None:
        """Encode and send; a caller who left meanwhile counts as cancelled."""
        message = self._encode(self.sources)
        if self.record is not None:
            note(self.record, self.sources)
        self.is_answered = self._reply.finish(grpc.StatusCode.OK, message=message)
        self._let_go()
        if self.is_answered:
            self._answer_bytes = len(message)
        else:
            self._count(grpc.StatusCode.CANCELLED.name, REASON_OF[Cancelled])

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        refusal = status_of(error)
        if self.record is not None:
            note(self.record, self.sources)
        self._reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
        self._let_go()
        self._count(refusal.code.name, refusal.reason)

    def cancel(self) -> None:
        """The caller is gone."""
        self._model.scheduler.cancel(self)

    def _let_go(self) -> None:
        """Forget the call: until it is freed, it counts against those that its connection may have open."""
        self._reply, self._encode = CLOSED_REPLY, _encode_nothing
        for row in self.sources:
            row.told = None

    def _count(self, status: str, reason: str) -> None:
        seconds = self._clock() - self.arrived_s
        self._model.metrics.request_failed(
            status, reason, seconds, self.request_bytes, self.response_bytes
        )


def read_request(
    message: pb.ModelInferRequest, model: ServedPair, received: ReceivedRequest
) -> PairRequest:
    """Decode and check a message.

    Args:
        message: as it came.
        model: that it names.
        received: the request that it is of.

    Raises:
        InvalidRequest: the message does not fit the model.
    """
    search = read_search(message.parameters)
    check_search(search, model)
    decoded = request_decoder.decode_request(
        message, model.signature, model.rules, finite_only=model.settings.non_finite == "reject"
    )
    wanted = _wanted(message, model)
    arrived_s = received.arrived_s
    rows = model.pair.rows(decoded.inputs, search, arrived_s=arrived_s)
    parts = None
    if received.send is not None and len(rows) == 1 and search.width == 1:
        rows[0].told = parts = Parts(model, received.send, message.id, wanted, rows[0])

    def encode(rows: Sequence[Row]) -> bytes:
        return encode_rows(model, message.id, wanted, rows, parts.sent if parts else 0)

    return PairRequest(
        model,
        received.reply,
        sources=rows,
        encode=encode,
        queued_s=arrived_s,
        deadline_s=min(received.deadline_s, arrived_s + (decoded.timeout_s or math.inf)),
        request_bytes=len(received.payload),
        clock=received.clock,
    )


def _wanted(message: pb.ModelInferRequest, model: ServedPair) -> list[str]:
    names = [output.name for output in message.outputs] or list(model.signature.outputs)
    model.signature.check_outputs(names)
    for output in message.outputs:
        if request_decoder.read_classification(output.name, output.parameters) is not None:
            raise InvalidRequest(f"output {output.name!r}: there are no classes to choose from")
    return names
