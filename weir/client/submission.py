"""A call as a future: started at once, finished by gRPC's thread."""

from concurrent.futures import Future
from typing import TypeVar

import grpc

from weir.client import errors
from weir.client.wire import Call

Result = TypeVar("Result")


def submit(
    channel: grpc.Channel,
    call: Call[Result],
    timeout_s: float | None,
    metadata: tuple[tuple[str, str], ...],
) -> Future[Result]:
    """Start a unary call; cancelling the future before its answer is there cancels the call."""
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.path)
    running = method.future(call.body, timeout=timeout_s, metadata=metadata)
    future: Future[Result] = Future()

    def cancel(done: Future[Result]) -> None:
        if done.cancelled():
            running.cancel()

    def finish(_: "grpc.Future[bytes]") -> None:
        # False: the future was cancelled, and nobody wants the outcome.
        if future.set_running_or_notify_cancel():
            _settle(future, running, call)

    future.add_done_callback(cancel)
    running.add_done_callback(finish)
    return future


def _settle(future: Future[Result], running: "grpc.Future[bytes]", call: Call[Result]) -> None:
    try:
        future.set_result(call.read(running.result()))
    except grpc.RpcError as error:
        future.set_exception(errors.from_failure(error))
    except grpc.FutureCancelledError:
        future.set_exception(errors.Cancelled("the client was closed"))
    except errors.WeirError as error:
        future.set_exception(error)
