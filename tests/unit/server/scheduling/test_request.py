import pytest

from tests.unit.server.conftest import FakeCall
from weir.server.errors import Draining
from weir.server.runtime.signature import Fit
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.request import Request
from weir.server.telemetry.model_stats import ModelStats

KIB_8 = 8 * 1024


class Queue:
    """A queue that takes every request, or none."""

    def __init__(self, *, is_closed: bool = False) -> None:
        self.budget = ByteBudget("model 'a'")
        self.is_closed = is_closed

    def submit(self, _: Request[bytes]) -> None:
        if self.is_closed:
            raise Draining("closed")

    def cancel(self, _: Request[bytes]) -> None:
        pass


def request_of(queue: Queue, request_bytes: int, tensor_bytes: int) -> Request[bytes]:
    return Request(
        queue,
        ModelStats("a", "1"),
        FakeCall(),
        inputs=b"",
        fit=Fit(rows=1, key=(), length=0, tensor_bytes=tensor_bytes),
        encode=bytes,
        arrived_s=0.0,
        queued_s=0.0,
        deadline_s=1.0,
        request_bytes=request_bytes,
        clock=float,
    )


@pytest.mark.parametrize(
    ("request_bytes", "tensor_bytes", "held_bytes"),
    [(100, KIB_8 - 101, 0), (100, KIB_8 - 100, KIB_8), (KIB_8, 0, KIB_8), (0, 0, 0)],
    ids=["below 8 KiB", "8 KiB", "8 KiB of message", "empty"],
)
@pytest.mark.parametrize("ends", ["answer", "fail"])
def test_bytes_are_in_flight_until_the_end_unless_they_are_few(
    request_bytes: int, tensor_bytes: int, held_bytes: int, ends: str
) -> None:
    queue = Queue()
    request = request_of(queue, request_bytes, tensor_bytes)

    request.submit()

    assert queue.budget.held_bytes == held_bytes
    if ends == "answer":
        request.answer(b"")
    else:
        request.fail(Draining("stopped"))
    assert queue.budget.held_bytes == 0


def test_request_that_its_queue_refuses_holds_no_bytes() -> None:
    queue = Queue(is_closed=True)

    with pytest.raises(Draining):
        request_of(queue, KIB_8, 0).submit()

    assert queue.budget.held_bytes == 0
