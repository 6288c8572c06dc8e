"""What the calls that take texts have in common: which models they are for, and how a text is read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.preprocessing.tokenizer import TokenizedText, Tokenizer
from weir.server.scheduling.served_model import ServedModel

Array = NDArray[Any]

PROBABILITIES = "probabilities"
_FLOATS = ("FP16", "FP32", "FP64")


def check_task(model: ServedModel, task: str) -> None:
    """Refuse a model that does something else."""
    found = model.contract.task if model.contract else "none: it has no contract"
    if found != task:
        raise InvalidRequest(f"model {model.name!r}: expected the task {task}, got {found}")


def tokenizer_of(model: ServedModel) -> Tokenizer:
    """What reads a model's texts.

    Raises:
        InvalidRequest: it takes none.
    """
    if model.tokenizer is None:
        raise InvalidRequest(
            f"model {model.name!r} takes no texts: its bundle says nothing of how to cut them "
            "(tokenisation)"
        )
    return model.tokenizer


def scored_output(model: ServedModel, axes: Sequence[str]) -> str:
    """The output that says how likely each class is: `probabilities`, or else the one with labels.

    Args:
        model: whose.
        axes: of the output, in words.

    Raises:
        InvalidRequest: it has none of numbers with such axes.
    """
    for name in (PROBABILITIES, *model.labels, "logits"):
        spec = model.signature.outputs.get(name)
        if spec is not None and spec.datatype in _FLOATS and len(spec.axes) == len(axes):
            return name
    raise InvalidRequest(
        f"model {model.name!r}: expected an output of numbers [{', '.join(axes)}], got none"
    )


def probabilities(output: str, scores: Array) -> Array:
    """Scores as probabilities: those of `probabilities` are some already, of others softmax is taken.

    Args:
        output: its name.
        scores: (…, classes).
    """
    if output == PROBABILITIES:
        return scores
    wide = scores.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


def tokenize_all(texts: Sequence[pb.Text], reader: Tokenizer) -> list[TokenizedText]:
    """Texts as their model sees them; what fails names the text."""
    readings = []
    for position, text in enumerate(texts):
        try:
            readings.append(tokenize(text, reader))
        except InvalidRequest as error:
            raise InvalidRequest(f"texts[{position}]: {error}") from error
    return readings


def tokenize(text: pb.Text, reader: Tokenizer) -> TokenizedText:
    """One text, whole or in tokens.

    Raises:
        InvalidRequest: see `Tokenizer`.
    """
    match text.WhichOneof("content"):
        case "text":
            return reader.tokenize(text.text)
        case "tokens":
            return reader.look_up(list(text.tokens.tokens))
    raise InvalidRequest("expected text or tokens, got neither")
