"""Text tasks: classification of texts (`ClassifyText`) and tagging of their tokens (`Tag`)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.preprocessing.tokenized_text import TokenizedText
from weir.server.preprocessing.tokenizer import BundleTokenizer
from weir.server.protocol import message_limits, response_encoder
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

PROBABILITIES = "probabilities"
_FLOATS = ("FP16", "FP32", "FP64")
# Each is a message that the session's thread builds.
_MAX_TAGGED_TOKENS = 10_000


def classify_text(model: Model) -> Preprocess:
    """`ClassifyText` on a model; see `task_call.Task`."""
    graph = single_graph(model, "sequence-classification")
    tokenizer = tokenizer_of(model.name, graph.tokenizer)
    output = scored_output(graph, ("batch", "classes"))
    return partial(_preprocess_classification, graph, tokenizer, output)


def tag(model: Model) -> Preprocess:
    """`Tag` on a model; see `task_call.Task`."""
    graph = single_graph(model, "tagging")
    tokenizer = tokenizer_of(model.name, graph.tokenizer)
    output = scored_output(graph, ("batch", "time", "tags"))
    return partial(_preprocess_tagging, graph, tokenizer, output)


def tokenizer_of(name: str, tokenizer: BundleTokenizer | None) -> BundleTokenizer:
    """The tokenizer of a model."""
    if tokenizer is None:
        raise InvalidRequest(f"model {name!r} takes no texts: its bundle has no tokenisation")
    return tokenizer


def tokenize(text: pb.Text, tokenizer: BundleTokenizer) -> TokenizedText:
    """Tokenize a text that is whole, or split into tokens."""
    match text.WhichOneof("content"):
        case "text":
            return tokenizer.tokenize(text.text)
        case "tokens":
            return tokenizer.look_up(list(text.tokens.tokens))
    raise InvalidRequest("expected text or tokens, got neither")


def _preprocess_classification(
    model: ServedModel, tokenizer: BundleTokenizer, output: str, call: TaskCall
) -> InferRequest:
    message_limits.check_texts(call.payload)
    message = parse_message(pb.ClassifyTextRequest, call.payload)
    check_rows("texts", len(message.texts), model)
    top_k = message.top_k or DEFAULT_TOP_K
    check_classes(model, output, len(message.texts), top_k)
    texts = _tokenize_all(message.texts, tokenizer)
    encode = partial(_encode_classes, model, output, message.id, top_k=top_k, texts=texts)
    return infer_request(call, model, model.signature.cast(tokenizer.rows(texts)), encode)


def _encode_classes(
    model: ServedModel,
    output: str,
    request_id: str,
    outputs: Mapping[str, Array],
    *,
    top_k: int,
    texts: Sequence[TokenizedText],
) -> bytes:
    response = pb.ClassifyTextResponse(
        model_name=model.name, model_version=model.version, id=request_id
    )
    likely = probabilities_of(output, outputs[output])
    ranked = response_encoder.rank(likely, top_k, model.labels.get(output))
    for text, classes in zip(texts, ranked, strict=True):
        response.results.add(classes=classes, unknown=text.unknown)
    return model.encoder.checked(response.SerializeToString())


def _preprocess_tagging(
    model: ServedModel, tokenizer: BundleTokenizer, output: str, call: TaskCall
) -> InferRequest:
    message_limits.check_texts(call.payload)
    message = parse_message(pb.TagRequest, call.payload)
    check_rows("texts", len(message.texts), model)
    texts = _tokenize_all(message.texts, tokenizer)
    if (tokens := sum(len(text.ids) for text in texts)) > _MAX_TAGGED_TOKENS:
        raise InvalidRequest(
            f"texts: expected at most {_MAX_TAGGED_TOKENS} tokens in a request, got {tokens}"
        )
    encode = partial(_encode_tags, model, output, message.id, texts)
    return infer_request(call, model, model.signature.cast(tokenizer.rows(texts)), encode)


def _encode_tags(
    model: ServedModel,
    output: str,
    request_id: str,
    texts: Sequence[TokenizedText],
    outputs: Mapping[str, Array],
) -> bytes:
    response = pb.TagResponse(model_name=model.name, model_version=model.version, id=request_id)
    labels = model.labels.get(output) or ()
    for row, text in enumerate(texts):
        likely = probabilities_of(output, outputs[output][row, : len(text.ids)])
        best = likely.argmax(axis=-1)  # (tokens,)
        tokens = response.results.add().tokens
        for token, tag_id, probability, is_unknown in zip(
            text.tokens, best.tolist(), likely.max(axis=-1).tolist(), text.is_unknown, strict=True
        ):
            tokens.add(
                text=token,
                tag=labels[tag_id] if tag_id < len(labels) else str(tag_id),
                probability=probability,
                is_unknown=is_unknown,
            )
    return model.encoder.checked(response.SerializeToString())


def _tokenize_all(texts: Sequence[pb.Text], tokenizer: BundleTokenizer) -> list[TokenizedText]:
    """Tokenize texts; a failure names the text."""
    tokenized = []
    for position, text in enumerate(texts):
        try:
            tokenized.append(tokenize(text, tokenizer))
        except InvalidRequest as error:
            raise InvalidRequest(f"texts[{position}]: {error}") from error
    return tokenized


def scored_output(model: ServedModel, axes: Sequence[str]) -> str:
    """The output with a score for each class: `probabilities`, one with labels, or `logits`."""
    for name in (PROBABILITIES, *model.labels, "logits"):
        spec = model.signature.outputs.get(name)
        if spec is not None and spec.datatype in _FLOATS and len(spec.axes) == len(axes):
            return name
    raise InvalidRequest(
        f"model {model.name!r}: expected an output of numbers [{', '.join(axes)}], got none"
    )


def probabilities_of(output: str, scores: Array) -> Array:
    """Probabilities of scores (…, classes): the softmax, unless the output is `probabilities`."""
    if output == PROBABILITIES:
        return scores
    powers = _powers(scores)
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


def greatest_probability_of(output: str, scores: Array) -> Array:
    """The greatest of the probabilities of scores (…, classes), (…)."""
    if output == PROBABILITIES:
        # A fifth of the time of `max` along a short axis.
        best = scores.argmax(axis=-1, keepdims=True)
        greatest: Array = np.take_along_axis(scores, best, axis=-1)[..., 0]
    else:
        # The power of the greatest score is 1.
        greatest = 1 / _powers(scores).sum(axis=-1)
    return greatest


def _powers(scores: Array) -> Array:
    """e to the distance of each score from the greatest."""
    wide: Array = scores.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    np.exp(wide, out=wide)
    return wide
