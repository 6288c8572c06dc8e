"""`ClassifyText`: texts in, what kind each is out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from weir.protocol import tasks_pb2 as pb
from weir.server.preprocessing.tokenizer import TokenizedText
from weir.server.protocol import message_limits, response_encoder
from weir.server.protocol.request_decoder import check_id, parse_message
from weir.server.scheduling.served_model import ServedModel
from weir.server.tasks import text
from weir.server.tasks.image_classification import DEFAULT_TOP_K, check_classes
from weir.server.tasks.task_call import Material, Prepared, TaskCall, check_rows

Array = NDArray[Any]

_AXES = ("batch", "classes")


def _check(model: ServedModel) -> None:
    text.check_task(model, "sequence-classification")
    text.tokenizer_of(model)
    text.scored_output(model, _AXES)


def _prepare(material: Material[ServedModel]) -> Prepared:
    message_limits.check_texts(material.payload)
    message, model = parse_message(pb.ClassifyTextRequest, material.payload), material.model
    check_id(message.id)
    check_rows("texts", len(message.texts), model)
    reader, output = text.tokenizer_of(model), text.scored_output(model, _AXES)
    top_k = message.top_k or DEFAULT_TOP_K
    check_classes(model, output, len(message.texts), top_k)
    readings = text.tokenize_all(message.texts, reader)
    return Prepared(
        inputs=reader.rows(readings),
        datatype="INT64",
        encode=partial(_encode, model, output, message.id, top_k=top_k, readings=readings),
    )


def _encode(
    model: ServedModel,
    output: str,
    request_id: str,
    outputs: Mapping[str, Array],
    *,
    top_k: int,
    readings: Sequence[TokenizedText],
) -> bytes:
    answer = pb.ClassifyTextResponse(
        model_name=model.name, model_version=model.version, id=request_id
    )
    likely = text.probabilities(output, outputs[output])
    ranked = response_encoder.rank(likely, top_k, model.labels.get(output))
    for reading, classes in zip(readings, ranked, strict=True):
        answer.results.add(classes=classes, unknown=reading.unknown)
    return model.encoder.checked(answer)


CLASSIFY_TEXT = TaskCall(_check, _prepare)
