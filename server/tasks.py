"""The task calls: one short method per call of `weir.v1.Tasks`."""

from server.classification import classify
from server.decoding import DecodePool
from server.generation.task import generate
from server.inference import Admission
from server.pb.weir.v1 import tasks_pb2 as pb
from server.transport.call import Call, Handlers, Stream, Unary

SERVICE = pb.DESCRIPTOR.services_by_name["Tasks"].full_name


class Tasks:
    """Answers the calls of `weir.v1.Tasks`.

    Args:
        admission: the way to the models' schedulers.
        decoding: where pictures become rows.
    """

    def __init__(self, admission: Admission, decoding: DecodePool) -> None:
        self._admission = admission
        self._decoding = decoding

    def handlers(self) -> Handlers:
        """By full method name."""
        return {
            f"/{SERVICE}/Classify": Unary(self.classify),
            f"/{SERVICE}/Generate": Stream(self.generate),
        }

    def classify(self, call: Call, payload: bytes) -> None:
        """Pictures → classes; answered by the thread that runs their batch."""
        classify(call, payload, self._admission, self._decoding)

    def generate(self, call: Call) -> None:
        """A text → a stream of tokens, and a result; sent by the thread that decodes it."""
        generate(call, self._admission, self._decoding)
