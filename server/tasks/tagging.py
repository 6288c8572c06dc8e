"""`Tag`: texts in, a tag for each of their tokens out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.preprocessing.tokenizer import TokenizedText
from weir.server.protocol import message_limits
from weir.server.protocol.request_decoder import check_id, parse_message
from weir.server.scheduling.served_model import ServedModel
from weir.server.tasks import text as texts
from weir.server.tasks.task_call import Material, Prepared, TaskCall, check_rows

Array = NDArray[Any]

_AXES = ("batch", "time", "tags")
# Each is a message made on the session's thread.
_MOST_TOKENS = 10_000


def _check(model: ServedModel) -> None:
    texts.check_task(model, "tagging")
    texts.tokenizer_of(model)
    texts.scored_output(model, _AXES)


def _prepare(material: Material[ServedModel]) -> Prepared:
    message_limits.check_texts(material.payload)
    message, model = parse_message(pb.TagRequest, material.payload), material.model
    check_id(message.id)
    check_rows("texts", len(message.texts), model)
    reader, output = texts.tokenizer_of(model), texts.scored_output(model, _AXES)
    readings = texts.tokenize_all(message.texts, reader)
    if (tokens := sum(len(reading.ids) for reading in readings)) > _MOST_TOKENS:
        raise InvalidRequest(
            f"texts: expected at most {_MOST_TOKENS} tokens in a request, got {tokens}"
        )
    return Prepared(
        inputs=reader.rows(readings),
        datatype="INT64",
        encode=partial(_encode, model, output, message.id, readings),
    )


def _encode(
    model: ServedModel,
    output: str,
    request_id: str,
    readings: Sequence[TokenizedText],
    outputs: Mapping[str, Array],
) -> bytes:
    answer = pb.TagResponse(model_name=model.name, model_version=model.version, id=request_id)
    labels = model.labels.get(output) or ()
    for row, reading in enumerate(readings):
        likely = texts.probabilities(output, outputs[output][row, : len(reading.ids)])
        best = likely.argmax(axis=-1)  # (tokens,)
        tokens = answer.results.add().tokens
        for text, tag, probability, is_unknown in zip(
            reading.tokens,
            best.tolist(),
            likely.max(axis=-1).tolist(),
            reading.is_unknown,
            strict=True,
        ):
            tokens.add(
                text=text,
                tag=labels[tag] if tag < len(labels) else str(tag),
                probability=probability,
                is_unknown=is_unknown,
            )
    return model.encoder.checked(answer)


TAG = TaskCall(_check, _prepare)
