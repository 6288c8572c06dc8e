"""A server with one planted fault: `python -m tests.integration.planted_server FAULT ARGUMENTS`.

The other arguments are those of `python -m weir.server`. A fault is planted where a test cannot
reach the running server from outside; a call of ServerLive sets it off.
"""

import sys
import threading
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from weir.protocol import inference_pb2 as pb
from weir.server.__main__ import main
from weir.server.scheduling.deadlines import Deadlines
from weir.server.services.inference import InferenceService

_is_due = threading.Event()


def _memory_error() -> None:
    """The I/O thread, or grpcio's thread of a `grpc.server`, runs out of memory as it polls."""
    _raise_in_poll(MemoryError("planted"))


def _exit() -> None:
    """A SystemExit, which Python's own threads swallow."""
    _raise_in_poll(SystemExit(3))


def _stuck() -> None:
    """The handler of ServerLive does not return, on the I/O thread."""

    def server_live(*_: Any) -> pb.ServerLiveResponse:
        threading.Event().wait()
        raise AssertionError

    InferenceService.server_live = server_live  # type: ignore[method-assign,assignment]


def _stuck_deadlines() -> None:
    """The thread of the deadlines waits for ever in a queue."""

    class Queue:
        def expire(self, _now: float) -> float:
            if _is_due.is_set():
                threading.Event().wait()
            return float("inf")

    _set_off_by_a_call()
    start = Deadlines.start

    def started(deadlines: Deadlines) -> None:
        deadlines.watch(Queue())
        start(deadlines)

    Deadlines.start = started  # type: ignore[method-assign,assignment]


def _raise_in_poll(error: BaseException) -> None:
    class Queue(cygrpc.CompletionQueue):  # type: ignore[misc]
        def poll(self, *arguments: Any) -> Any:
            event = super().poll(*arguments)
            if _is_due.is_set():
                raise error
            return event

    cygrpc.CompletionQueue = Queue
    _set_off_by_a_call()


def _set_off_by_a_call() -> None:
    answer = InferenceService.server_live

    def server_live(*arguments: Any) -> pb.ServerLiveResponse:
        _is_due.set()
        return answer(*arguments)

    InferenceService.server_live = server_live  # type: ignore[method-assign,assignment]


FAULTS = {
    "memory-error": _memory_error,
    "exit": _exit,
    "stuck": _stuck,
    "stuck-deadlines": _stuck_deadlines,
}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    main(sys.argv[2:])
