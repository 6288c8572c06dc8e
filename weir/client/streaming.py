"""Many requests over one stream, their answers in the requests' order.

gRPC reads the requests on a thread of its own. It and the caller meet in one semaphore that counts
the requests in flight: taken before a request is built, given back when its answer is handed out.
So neither a fast producer nor a slow answer makes anything grow without bound.
"""

import threading
from collections.abc import Generator, Iterable, Iterator

import grpc

from weir.client import errors, wire
from weir.client.ordering import InOrder
from weir.client.results import Answer
from weir.protocol import inference_pb2 as pb


def stream_answers(
    channel: grpc.Channel,
    requests: Iterable[pb.ModelInferRequest],
    *,
    timeout_s: float | None,
    metadata: tuple[tuple[str, str], ...],
    in_flight: int,
) -> Generator[Answer, None, None]:
    """Yield the answers in the requests' order; what fails raises when its turn comes."""
    feed = _Feed(requests, in_flight)
    order = InOrder()
    method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(wire.STREAM_INFER)
    call = method(feed.bodies(), timeout=timeout_s, metadata=metadata)
    try:
        for body in call:
            for answer in order.put(*wire.read_stream_answer(body)):
                feed.slots.release()
                yield answer
    except grpc.RpcError as error:
        raise errors.from_failure(error) from error
    finally:
        feed.close()
        call.cancel()
    if feed.failure:
        raise feed.failure
    order.check_complete(feed.sent, all_sent=feed.is_exhausted)


class _Feed:
    """The requests as gRPC's thread reads them.

    Attributes:
        slots: one for each request that may still be sent.
        failure: what the caller's iterable raised; it is raised to the caller, who wrote it.
        sent: how many requests were read.
        is_exhausted: whether the iterable came to its end.
    """

    def __init__(self, requests: Iterable[pb.ModelInferRequest], in_flight: int) -> None:
        self.slots = threading.Semaphore(wire.check_in_flight(in_flight))
        self.failure: Exception | None = None
        self.sent = 0
        self.is_exhausted = False
        self._requests = iter(requests)
        self._is_closed = False

    def bodies(self) -> Iterator[bytes]:
        """The serialised requests, each after a free slot was found."""
        while self.slots.acquire() and not self._is_closed:
            try:
                request = next(self._requests, None)
            except Exception as error:  # noqa: BLE001  the caller's own code, raised to the caller
                self.failure = error
                return
            if request is None:
                self.is_exhausted = True
                return
            request.id = str(self.sent)
            self.sent += 1
            yield request.SerializeToString()

    def close(self) -> None:
        """Let gRPC's thread go if it waits for a slot."""
        self._is_closed = True
        self.slots.release()
