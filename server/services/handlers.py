"""A call of one message and one answer, from its bytes to its bytes."""

from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from weir.server.protocol.request_decoder import parse_message
from weir.server.transport.base import Call, Unary
from weir.server.transport.status import status_of

M = TypeVar("M", bound=Message)


def unary(request_type: type[M], method: Callable[[M], Message]) -> Unary:
    """A handler that parses, calls, and maps failures to statuses."""

    def handle(call: Call, payload: bytes) -> None:
        try:
            message = method(parse_message(request_type, payload))
        except Exception as error:  # noqa: BLE001 - the one place where these calls may fail
            refuse(call, error)
        else:
            call.finish(grpc.StatusCode.OK, message=message.SerializeToString())

    return Unary(handle)


def later(
    request_type: type[M],
    method: Callable[[M, Callable[[Exception | None], None]], None],
    answer: Message,
) -> Unary:
    """Likewise, for a method that is done later, and says so from any thread: with nothing, or with what failed.

    Args:
        request_type: of the message.
        method: begins; what it raises ends the call too.
        answer: of a call that went well.
    """

    def handle(call: Call, payload: bytes) -> None:
        def done(error: Exception | None) -> None:
            if error is not None:
                refuse(call, error)
            else:
                call.finish(grpc.StatusCode.OK, message=answer.SerializeToString())

        try:
            method(parse_message(request_type, payload), done)
        except Exception as error:  # noqa: BLE001 - the one place where these calls may fail
            refuse(call, error)

    return Unary(handle)


def refuse(call: Call, error: Exception) -> None:
    """End a call with the status of a failure."""
    status = status_of(error)
    call.finish(status.code, status.details, trailers=status.trailers)
