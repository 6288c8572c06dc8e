"""Image classification (`Classify`): pictures in, their likeliest classes out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Preprocessing
from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest, ServerError
from weir.server.preprocessing import images
from weir.server.protocol import response_encoder
from weir.server.protocol.request_decoder import parse_message
from weir.server.scheduling.request import InferRequest, Model
from weir.server.scheduling.served_model import ServedModel
from weir.server.tasks.task_call import (
    DEFAULT_TOP_K,
    Preprocess,
    TaskCall,
    check_classes,
    check_rows,
    infer_request,
    single_graph,
)

Array = NDArray[Any]


def classify(model: Model) -> Preprocess:
    """`Classify` on a model; see `task_call.Task`."""
    graph = single_graph(model)
    preprocessing = graph.contract.preprocessing if graph.contract else None
    if preprocessing is None:
        raise InvalidRequest(
            f"model {model.name!r} takes no pictures: its bundle has no preprocessing"
        )
    return partial(_preprocess, graph, preprocessing)


def _preprocess(model: ServedModel, preprocessing: Preprocessing, call: TaskCall) -> InferRequest:
    message = parse_message(pb.ClassifyRequest, call.payload)
    check_rows("pictures", len(message.pictures), model)
    _check_pixels(message.pictures)
    output, top_k = preprocessing.output, message.top_k or DEFAULT_TOP_K
    check_classes(model, output, len(message.pictures), top_k)
    return infer_request(
        call,
        model,
        {preprocessing.input: _pixels(message, preprocessing, model, call)},
        partial(_encode, model, output, message.id, top_k),
    )


def _check_pixels(pictures: Sequence[pb.Picture]) -> None:
    """Refuse a request of too many pixels, by the headers of its pictures."""
    if len(pictures) * images.MAX_PIXELS <= images.MAX_REQUEST_PIXELS:
        return
    images.check_request_pixels(
        sum(
            images.header_pixels(picture.encoded)
            if picture.WhichOneof("content") == "encoded"
            else picture.raw.height * picture.raw.width
            for picture in pictures
        )
    )


def _pixels(
    message: pb.ClassifyRequest, preprocessing: Preprocessing, model: ServedModel, call: TaskCall
) -> Array:
    """The pictures of a message, one after the other: (pictures, height, width, channels)."""
    height, width, channels = preprocessing.height, preprocessing.width, preprocessing.channels
    rows = np.empty((len(message.pictures), height, width, channels), np.uint8)
    for position, picture in enumerate(message.pictures):
        if call.is_over:
            break
        started_s = call.clock()
        try:
            rows[position] = _read(picture, preprocessing)
        except ServerError as error:
            raise type(error)(f"pictures[{position}]: {error}") from error
        model.stats.request_preprocessed(call.clock() - started_s)
    return rows


def _read(picture: pb.Picture, preprocessing: Preprocessing) -> images.Pixels:
    match picture.WhichOneof("content"):
        case "encoded":
            return images.read_encoded(picture.encoded, preprocessing)
        case "raw":
            raw = picture.raw
            return images.read_raw(
                raw.values,
                height=raw.height,
                width=raw.width,
                channels=raw.channels,
                preprocessing=preprocessing,
            )
    raise InvalidRequest("expected encoded or raw, got neither")


def _encode(
    model: ServedModel, output: str, request_id: str, top_k: int, outputs: Mapping[str, Array]
) -> bytes:
    response = pb.ClassifyResponse(
        model_name=model.name, model_version=model.version, id=request_id
    )
    for classes in response_encoder.rank(outputs[output], top_k, model.labels.get(output)):
        response.results.add(classes=classes)
    return model.encoder.checked(response.SerializeToString())
