"""From one `ClassifyRequest` to its answer: pictures in, the names of what they show out.

The model is found, and refused, before anything waits. Then the pictures are decoded on a thread of
`decoding`, and their rows take the same way through the scheduler as those of a `ModelInfer`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from bundle.contract import Preprocessing
from server import guard, pictures, response
from server.decoding import DecodePool
from server.errors import InvalidRequest, ServerError
from server.inference import Admission
from server.model import ServedModel
from server.parameters import check_id
from server.pb.weir.v1 import tasks_pb2 as pb
from server.pending import InferRequest
from server.transport.call import Call

Array = NDArray[Any]

_DEFAULT_TOP_K = 5


def classify(call: Call, payload: bytes, admission: Admission, decoding: DecodePool) -> None:
    """Check a `ClassifyRequest` as far as that is cheap, and queue it to be decoded.

    Runs on the transport's thread: nothing here looks into a picture.
    """
    arrived_s = admission.clock()
    model = None
    try:
        name, version = guard.read_texts(
            payload,
            pb.ClassifyRequest.MODEL_NAME_FIELD_NUMBER,
            pb.ClassifyRequest.MODEL_VERSION_FIELD_NUMBER,
        )
        model = admission.find_graph(name, version)
        job = PictureJob(call, payload, model, admission, arrived_s)
        # Before it is queued: a job that is done at once asks for the same word on its request.
        call.on_close(partial(decoding.cancel, job))
        decoding.submit(job)
    except Exception as error:  # noqa: BLE001 - the one place where admission may fail
        admission.refuse(error, call, model, arrived_s)


class PictureJob:
    """A request until its pictures are rows; see `decoding.Job`.

    Args:
        call: to be answered.
        payload: a `ClassifyRequest`.
        model: that it names.
        admission: gives it its time, and counts it if it fails.
        arrived_s: when it came.

    Raises:
        InvalidRequest: the model takes no pictures.
    """

    def __init__(
        self, call: Call, payload: bytes, model: ServedModel, admission: Admission, arrived_s: float
    ) -> None:
        preprocessing = model.contract.preprocessing if model.contract else None
        if preprocessing is None:
            raise InvalidRequest(
                f"model {model.name!r} takes no pictures: its bundle says nothing of how to "
                "prepare them (preprocessing)"
            )
        self.payload_bytes = len(payload)
        self.arrived_s = arrived_s
        self.deadline_s = arrived_s + admission.left_s(call.time_left_s())
        self.is_wanted = True
        self._admission = admission
        self._call = call
        self._model = model
        self._payload = payload
        self._preprocessing = preprocessing
        self._request: InferRequest | None = None

    def work(self) -> None:
        """Unpack, check, and decode one picture after the other."""
        message = _parse(self._payload)
        self._payload = b""
        check_id(message.id)
        rows, key = self._admit(len(message.pictures))
        top_k = message.top_k or _DEFAULT_TOP_K
        self._check_classes(rows, top_k)
        self._request = InferRequest(
            self._model,
            self._call,
            inputs={self._preprocessing.input: self._decode(message)},
            rows=rows,
            key=key,
            encode=partial(self._encode, message.id, top_k),
            arrived_s=self.arrived_s,
            queued_s=self._admission.clock(),
            deadline_s=self.deadline_s,
            clock=self._admission.clock,
        )

    def proceed(self) -> None:
        """Queue the rows for the model."""
        if self._request is not None:
            self._model.scheduler.submit(self._request)
            self._call.on_close(self._request.cancel)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        self._admission.refuse(error, self._call, self._model, self.arrived_s)

    def _admit(self, count: int) -> tuple[int, Any]:
        if not count:
            raise InvalidRequest("pictures: expected 1 or more, got 0")
        if count > self._model.signature.max_rows:
            raise InvalidRequest(
                f"pictures: expected at most {self._model.signature.max_rows} in a request, "
                f"got {count}"
            )
        chosen = self._preprocessing
        shape = (count, chosen.height, chosen.width, chosen.channels)
        return self._model.signature.admit(((chosen.input, "UINT8", shape),))

    def _check_classes(self, rows: int, top_k: int) -> None:
        classes = self._model.signature.outputs[self._preprocessing.output].axes[1]
        each = min(top_k, classes) if isinstance(classes, int) else top_k
        response.check_classes(rows * each)

    def _decode(self, message: pb.ClassifyRequest) -> Array:
        chosen, clock = self._preprocessing, self._admission.clock
        rows = np.empty(
            (len(message.pictures), chosen.height, chosen.width, chosen.channels), np.uint8
        )
        for position, picture in enumerate(message.pictures):
            if not self.is_wanted:
                # Answered meanwhile: what is still missing would be decoded for nobody.
                break
            started_s = clock()
            try:
                rows[position] = _read(picture, chosen)
            except ServerError as error:
                raise type(error)(f"pictures[{position}]: {error}") from error
            self._model.metrics.picture_decoded(clock() - started_s)
        return rows

    def _encode(self, request_id: str, top_k: int, outputs: Mapping[str, Array]) -> bytes:
        output = self._preprocessing.output
        return self._model.encoder.encode_classes(
            request_id, outputs[output], top_k, self._model.labels.get(output)
        )


def _parse(payload: bytes) -> pb.ClassifyRequest:
    try:
        return pb.ClassifyRequest.FromString(payload)
    except DecodeError:
        raise InvalidRequest("the message is no valid ClassifyRequest") from None


def _read(picture: pb.Picture, preprocessing: Preprocessing) -> pictures.Pixels:
    match picture.WhichOneof("content"):
        case "encoded":
            return pictures.read_encoded(picture.encoded, preprocessing)
        case "raw":
            raw = picture.raw
            return pictures.read_raw(
                raw.values,
                height=raw.height,
                width=raw.width,
                channels=raw.channels,
                preprocessing=preprocessing,
            )
    raise InvalidRequest("expected encoded or raw, got neither")
