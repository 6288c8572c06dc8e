"""`Classify`: pictures in, the names of what they show out."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Preprocessing
from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest, ServerError
from weir.server.preprocessing import images
from weir.server.protocol import response_encoder
from weir.server.protocol.request_decoder import check_id, parse_message
from weir.server.scheduling.served_model import ServedModel
from weir.server.tasks.task_call import Material, Prepared, TaskCall, check_rows

Array = NDArray[Any]

DEFAULT_TOP_K = 5


def _preprocessing(model: ServedModel) -> Preprocessing:
    preprocessing = model.contract.preprocessing if model.contract else None
    if preprocessing is None:
        raise InvalidRequest(
            f"model {model.name!r} takes no pictures: its bundle says nothing of how to "
            "prepare them (preprocessing)"
        )
    return preprocessing


def _check(model: ServedModel) -> None:
    _preprocessing(model)


def _prepare(material: Material[ServedModel]) -> Prepared:
    """Unpack, check, and decode one picture after the other."""
    message, model = parse_message(pb.ClassifyRequest, material.payload), material.model
    chosen = _preprocessing(model)
    check_id(message.id)
    check_rows("pictures", len(message.pictures), model)
    top_k = message.top_k or DEFAULT_TOP_K
    check_classes(model, chosen.output, len(message.pictures), top_k)
    return Prepared(
        inputs={chosen.input: _decode(message, chosen, material)},
        datatype="UINT8",
        encode=partial(_encode, model, chosen.output, message.id, top_k),
    )


def check_classes(model: ServedModel, output: str, rows: int, top_k: int) -> None:
    """Refuse a request for more classes than are written for one."""
    classes = model.signature.outputs[output].axes[1]
    each = min(top_k, classes) if isinstance(classes, int) else top_k
    response_encoder.check_classes(rows * each)


def _decode(
    message: pb.ClassifyRequest, chosen: Preprocessing, material: Material[ServedModel]
) -> Array:
    rows = np.empty((len(message.pictures), chosen.height, chosen.width, chosen.channels), np.uint8)
    for position, picture in enumerate(message.pictures):
        if not material.is_wanted():
            # Answered meanwhile: what is still missing would be decoded for nobody.
            break
        started_s = material.clock()
        try:
            rows[position] = _read(picture, chosen)
        except ServerError as error:
            raise type(error)(f"pictures[{position}]: {error}") from error
        material.model.metrics.request_preprocessed(material.clock() - started_s)
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
    model: ServedModel,
    output: str,
    request_id: str,
    top_k: int,
    outputs: Mapping[str, Array],
) -> bytes:
    answer = pb.ClassifyResponse(model_name=model.name, model_version=model.version, id=request_id)
    for classes in response_encoder.rank(outputs[output], top_k, model.labels.get(output)):
        answer.results.add(classes=classes)
    return model.encoder.checked(answer)


CLASSIFY = TaskCall(_check, _prepare)
