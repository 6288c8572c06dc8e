"""A test set as requests with known answers: what `weir evaluate` asks a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from weir.client.errors import UsageError
from weir.evaluate.asked import Asked, choose

if TYPE_CHECKING:
    from weir.bundle.contract import Tolerance
    from weir.bundle.reader import Bundle
    from weir.client.results import Answer, ModelMetadata
    from weir.training.data import ImageData, TextData
    from weir.training.text.packed import Strip
    from weir.training.text.recipe import TokenSettings

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


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A test set whose answers are right or wrong one by one.

    why, is_other: as `asked.Asked` says.
    """

    questions: list[Question]
    why: str
    is_other: bool = False


class HeldOut(Protocol):
    """A test set whose answers are not right or wrong one by one, but measured together."""

    @property
    def questions(self) -> list[Question]:
        """What to ask."""
        ...

    @property
    def why(self) -> str:
        """Which rows these are, in words."""
        ...

    @property
    def is_other(self) -> bool:
        """Whether they are none that training measured, as far as the bundle knows."""
        ...

    @property
    def tolerance(self) -> "Tolerance":
        """How far a measure may be from training's."""
        ...

    def measure(self, answers: Sequence["Answer"]) -> dict[str, float]:
        """How good the answers to all questions are, named as training names it; WeirError if they are no such answers."""
        ...


def of_pictures(data: "ImageData", input_name: str, rows: int) -> QuestionSet:
    """Pictures of the test split, so many a request."""
    questions = [
        Question({input_name: data.images[first : first + rows]}, data.labels[first : first + rows])
        for first in range(0, len(data.labels), rows)
    ]
    return QuestionSet(questions, f"the test split of {data.name}")


def of_sequences(data: str, bundle: "Bundle", column: str | None, rows: int) -> QuestionSet:
    """Sequences in the numbers of the bundle's vocabularies, those of like length together.

    Raises:
        TrainingError: the data cannot be read.
        UsageError: the bundle is not made for such data.
    """
    import torch

    from weir.training.text.packed import starts_of, take

    asked = _asked(data, bundle, column)
    strip = asked.rows
    starts = starts_of(strip)
    names = ["frames" if strip.forms is None else "tokens", "lengths", "characters"]
    questions = []
    for chosen in torch.split(torch.argsort(strip.lengths, stable=True), rows):
        batch = take(strip, starts, chosen)
        inputs = {name: tensor.numpy() for name, tensor in zip(names, batch.inputs, strict=False)}
        questions.append(Question(inputs, batch.targets.numpy()))
    return QuestionSet(questions, asked.why, asked.is_other)


def _asked(data: str, bundle: "Bundle", column: str | None) -> "Asked[Strip]":
    from weir.training.data import load
    from weir.training.data.vocabulary import Vocabulary
    from weir.training.text.experiment import to_rows
    from weir.training.text.packed import to_strip

    contract = bundle.contract
    if not contract.vocabularies:
        return Asked(to_rows(load(data, "test")), f"the test set of {data}")
    texts = _texts(data, bundle, column)
    entries = {name: bundle.vocabulary(name) or [] for name in contract.vocabularies}
    strip = to_strip(
        texts.rows,
        bundle.labels("logits") or [],
        {name: Vocabulary(tuple(lines)) for name, lines in entries.items()},
        _settings(bundle),
    )
    return Asked(strip, texts.why, texts.is_other)


def _texts(data: str, bundle: "Bundle", column: str | None) -> "Asked[TextData]":
    """The rows that are asked, labelled as the bundle answers."""
    from weir.training.data import TEXT_SETS, load_text
    from weir.training.data.lines import load_file

    contract, of_conllu = bundle.contract, column or "upos"
    asked = choose(
        data,
        TEXT_SETS,
        contract.training.data_checksum if contract.training else None,
        whole=lambda: load_file(Path(data), column=of_conllu),
        held_out=lambda: load_text(data, "test", column=of_conllu),
    )
    found, known = asked.rows, bundle.labels("logits") or []
    if found.is_tagged != (contract.task == "tagging"):
        raise UsageError(f"{data}: not the kind of data that {contract.architecture} answers")
    if set(found.classes).isdisjoint(known):
        raise UsageError(
            f"{data}: expected labels such as {', '.join(known[:1])}, got {found.classes[0]}"
        )
    return asked


def _settings(bundle: "Bundle") -> "TokenSettings":
    """How words become numbers, as the contract says."""
    from weir.training.text.recipe import TokenSettings

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
