"""A server with one planted fault: `python -m tests.integration.planted_server FAULT ARGUMENTS`.

The other arguments are those of `python -m weir.server`. A fault is planted where a test cannot
reach the running server from outside; a call of ServerLive sets it off. `launch` starts the server
of a test with a fault.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from weir.protocol import inference_pb2 as pb
from weir.server.__main__ import main
from weir.server.runtime.session import Session
from weir.server.scheduling.deadlines import Deadlines
from weir.server.services.inference import InferenceService

SLOW_WIDTH = 256
SLOW_ROW_S = 0.01

_is_due = threading.Event()


def launch(fault: str) -> Callable[[list[str]], list[str]]:
    """Makes the command of a server with a fault of the server's own; see `harness.running`."""

    def start(own: list[str]) -> list[str]:
        arguments = own[own.index("weir.server") + 1 :]
        return [sys.executable, "-m", "tests.integration.planted_server", fault, *arguments]

    return start


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


def _slow_rows() -> None:
    """A run takes `SLOW_ROW_S` for each row of `SLOW_WIDTH`, whatever else the machine does."""
    run = Session.run

    def slow(session: Session, inputs: Any, *arguments: Any) -> Any:
        shape = next(iter(inputs.values())).shape
        if shape[1:] == (SLOW_WIDTH,):
            time.sleep(SLOW_ROW_S * shape[0])
        return run(session, inputs, *arguments)

    Session.run = slow  # type: ignore[method-assign,assignment]


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
    "slow-rows": _slow_rows,
    "exit": _exit,
    "stuck": _stuck,
    "stuck-deadlines": _stuck_deadlines,
}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    main(sys.argv[2:])
