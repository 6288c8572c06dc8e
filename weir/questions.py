"""A test set as requests with known answers: what `weir evaluate` asks a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from weir.errors import UsageError

if TYPE_CHECKING:
    from bundle.contract import Tolerance
    from bundle.reader import Bundle
    from training.data import ImageData
    from training.sequences.numbers import Strip
    from training.sequences.recipe import TokenSettings
    from weir.answers import Answer, ModelMetadata

NO_ANSWER = -100
"""Beyond the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request: inputs by name, and what is right.

    answers: the class of each row or, (rows, steps), of each step; of a series the values (rows, horizon);
    of pairs which row of the test set each is.
    """

    inputs: Mapping[str, NDArray[Any]]
    answers: NDArray[Any]

    @property
    def asked(self) -> int:
        """How many answers there are to be given."""
        return int((self.answers != NO_ANSWER).sum())


class HeldOut(Protocol):
    """A test set whose answers are not right or wrong one by one, but measured together."""

    @property
    def questions(self) -> list[Question]:
        """What to ask."""
        ...

    @property
    def tolerance(self) -> "Tolerance":
        """How far a measure may be from training's."""
        ...

    def measure(self, answers: Sequence["Answer"]) -> dict[str, float]:
        """How good the answers to all questions are, named as training names it; WeirError if they are no such answers."""
        ...


def of_pictures(data: "ImageData", input_name: str, rows: int) -> list[Question]:
    """Pictures, so many a request."""
    return [
        Question({input_name: data.images[first : first + rows]}, data.labels[first : first + rows])
        for first in range(0, len(data.labels), rows)
    ]


def of_sequences(data: str, bundle: "Bundle", column: str, rows: int) -> list[Question]:
    """Sequences in the numbers of the bundle's vocabularies, those of like length together.

    Raises:
        TrainingError: the data cannot be read.
        UsageError: the bundle is not made for such data.
    """
    import torch

    from training.sequences.numbers import starts_of, take

    strip = _strip(data, bundle, column)
    names = ["frames" if strip.forms is None else "tokens", "lengths", "characters"]
    starts = starts_of(strip)
    questions = []
    for chosen in torch.split(torch.argsort(strip.lengths, stable=True), rows):
        batch = take(strip, starts, chosen)
        inputs = {name: tensor.numpy() for name, tensor in zip(names, batch.inputs, strict=False)}
        questions.append(Question(inputs, batch.targets.numpy()))
    return questions


def _strip(data: str, bundle: "Bundle", column: str) -> "Strip":
    from training.data import load, load_text
    from training.data.vocabulary import Vocabulary
    from training.sequences.numbers import to_strip
    from training.sequences.problem import to_rows

    contract = bundle.contract
    if not contract.vocabularies:
        return to_rows(load(data, "test"))
    entries = {name: bundle.vocabulary(name) or [] for name in contract.vocabularies}
    texts = load_text(data, "test", column=column)
    if texts.is_tagged != (contract.task == "tagging"):
        raise UsageError(f"{data}: not the kind of data that {contract.architecture} answers")
    return to_strip(
        texts,
        bundle.labels("logits") or [],
        {name: Vocabulary(tuple(lines)) for name, lines in entries.items()},
        _settings(bundle),
    )


def _settings(bundle: "Bundle") -> "TokenSettings":
    """How words become numbers, as the contract says."""
    from training.sequences.recipe import TokenSettings

    contract = bundle.contract
    letters = contract.padded_axes.get("letters")
    return TokenSettings(
        size=1,
        lower=contract.tokenisation.lower if contract.tokenisation else False,
        spelling=letters is not None,
        most_letters=letters.maximum if letters else 1,
    )


def input_of(metadata: "ModelMetadata") -> str:
    """The one input of a model of pictures.

    Raises:
        UsageError: it takes something else.
    """
    shapes = [tensor.shape for tensor in metadata.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or -1 in shapes[0][1:]:
        raise UsageError(
            f"{metadata.name}: expected one input [batch, height, width, channels], got {shapes}; "
            "of a model of sequences or series say --bundle, which says what it reads"
        )
    return metadata.inputs[0].name


def count_right(question: Question, answer: NDArray[Any]) -> int:
    """How many answers are right; of scores, the greatest counts."""
    chosen = answer.argmax(axis=-1) if answer.dtype.kind == "f" else answer
    return int(((chosen == question.answers) & (question.answers != NO_ANSWER)).sum())
