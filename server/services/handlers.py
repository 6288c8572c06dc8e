"""Unary handlers: parse a request, call a method, send its response.

A method's failure ends the call with its status (`transport.status.guarded`).
"""

from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from weir.server.protocol.request_decoder import parse_message
from weir.server.transport.base import Call, Unary
from weir.server.transport.status import fail

M = TypeVar("M", bound=Message)


def unary(request_type: type[M], method: Callable[[M], Message]) -> Unary:
    """A handler whose method returns the response."""

    def handle(call: Call, payload: bytes) -> None:
        response = method(parse_message(request_type, payload))
        call.finish(grpc.StatusCode.OK, message=response.SerializeToString())

    return Unary(handle)


def deferred(
    request_type: type[M],
    method: Callable[[M, Callable[[Exception | None], None]], None],
    response: Message,
) -> Unary:
    """A handler whose method ends later, on any thread, with a callback.

    Args:
        request_type: of the request.
        method: starts the work. It calls its second argument with None or with the failure.
        response: sent on success.
    """

    def handle(call: Call, payload: bytes) -> None:
        def done(error: Exception | None) -> None:
            if error is not None:
                fail(call, error)
            else:
                call.finish(grpc.StatusCode.OK, message=response.SerializeToString())

        method(parse_message(request_type, payload), done)

    return Unary(handle)
