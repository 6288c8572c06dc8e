"""Test sets as requests: labelled rows, and the choice of the rows that `weir evaluate` sends.

    --data is                                  rows              training's figure
    the name of a data set                     its test set      of the test, if it was trained on
    the file that training divided             the held-out part of the test
    the file that training tested on           all               of the test
    the file that chose the epoch              all               of the validation
    the file that training read alone          all               none
    any other file                             all               none

The bundle's checksums tell the files apart; a copy under another name is the same file.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from weir.bundle.contract import Provenance

NO_TARGET = -100
"""Target of the padding behind a sentence."""

Recorded: TypeAlias = Literal["test", "validation"]
"""The figure of training that was measured on the same rows."""


@dataclass(frozen=True, slots=True)
class LabelledRequest:
    """One request of tensors with its targets.

    Attributes:
        inputs: arrays by input name.
        targets: labels (rows,); for a series the values (rows, horizon); for pairs each row's
            index in the test set.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[Any]

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self.targets)


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One request of texts, each split into tokens or whole, with their targets.

    Attributes:
        targets: of each text its labels: one, or one for each token.
    """

    texts: Sequence[str | Sequence[str]]
    targets: Sequence[Sequence[str]]

    @property
    def row_count(self) -> int:
        """Number of texts."""
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which rows of the data are sent, and what training measured on them.

    Attributes:
        text: the rows, for the user.
        recorded: the figure of training for these rows; None if it has none.
        remark: what limits the meaning of the result, or empty.
    """

    text: str
    recorded: Recorded | None = None
    remark: str = ""


class Sourced(Protocol):
    """Rows of files."""

    @property
    def checksum(self) -> str:
        """SHA-256 over the files of all splits."""

    @property
    def source_checksum(self) -> str:
        """SHA-256 of what these rows were read from."""


Rows = TypeVar("Rows")
_Read = TypeVar("_Read", bound=Sourced)


@dataclass(frozen=True, slots=True)
class Selection(Generic[Rows]):
    """Rows to send, and their origin."""

    rows: Rows
    origin: Origin


def select_rows(
    data: str,
    sets: Collection[str],
    training: "Provenance | None",
    *,
    read_all: Callable[[], _Read],
    read_test: Callable[[], _Read],
    whole: str | None = None,
) -> Selection[_Read]:
    """The rows of `data`, which is one of the `sets` or the path of a file or folder, to send.

    Args:
        training: what the bundle or the server says of the training; None: nothing.
        read_all: reads a whole file.
        read_test: reads the test set of a data set, or the held-out part of a file.
        whole: what `read_all` reads; None: all of the file.
    """
    if data in sets or not Path(data).exists():
        # A path that does not exist is refused by the reader.
        rows = read_test()
        return Selection(rows, _origin_of_set(data, rows, training))
    rows = read_all()
    whole = whole or f"all of {data}"
    if training is None:
        return Selection(rows, Origin(f"{whole}; what the model was trained on is not known"))
    if _is_divided(rows, training):
        text = f"what training held out of {data}{_other_name(data, training)}"
        return Selection(read_test(), Origin(text, "test"))
    return Selection(rows, _origin_of_file(data, rows, training, whole))


def _origin_of_set(data: str, rows: Sourced, training: "Provenance | None") -> Origin:
    text = f"the test set of {data}"
    if training is None:
        return Origin(text)
    splits = training.split_checksums
    if rows.source_checksum == (splits.test if splits else training.data_checksum):
        return Origin(text, "test")
    if splits and rows.source_checksum == splits.train:
        return Origin(f"{text}; training tested on other rows")
    if data != training.data:
        return Origin(f"{text}, which the bundle was not trained on")
    if splits is None:
        return Origin(f"{text}; the bundle is of an earlier version, and its test rows are unknown")
    return Origin(f"{text}; the bundle was trained on another release of it")


def _is_divided(rows: Sourced, training: "Provenance") -> bool:
    """Whether training took its own and its test rows from this file."""
    splits = training.split_checksums
    if splits is None:
        # One checksum over three files is that of the file only if all three are the same.
        return rows.checksum == training.data_checksum
    return rows.source_checksum == splits.train == splits.test


def _origin_of_file(data: str, rows: Sourced, training: "Provenance", whole: str) -> Origin:
    kind = "folder" if Path(data).is_dir() else "file"
    splits, own = training.split_checksums, rows.source_checksum
    if splits is None:
        return Origin(
            f"{whole}; the bundle is of an earlier version, which does not say whether training "
            f"read this {kind}"
        )
    if own == splits.test == splits.validation:
        return Origin(f"{whole}, by which training chose its epoch, and which it tested on", "test")
    if own == splits.test:
        return Origin(f"{whole}, which training tested on", "test")
    if own == splits.train:
        text = f"{whole}, which the bundle was trained on{_other_name(data, training)}"
        remark = "the bundle was trained on these rows: the result says nothing of others"
        return Origin(text, remark=remark)
    if own == splits.validation:
        return Origin(f"{whole}, by which training chose its epoch", "validation")
    return Origin(f"{whole}, which is not a {kind} of the bundle's training")


def _other_name(data: str, training: "Provenance") -> str:
    return "" if Path(data).name == training.data else f" (in the bundle: {training.data})"


@dataclass(frozen=True, slots=True)
class ClassifiedSet:
    """A test set of classes, each answer right or wrong.

    Attributes:
        requests: in the order to send them.
        labels: the model's, by class id; empty if it does not say them.
        unit: what a row is, for the user.
        remarks: what the user should know of the rows, such as labels that the model lacks.
    """

    requests: list[LabelledRequest] | list[TextRequest]
    origin: Origin
    labels: Sequence[str] = ()
    unit: str = "rows"
    remarks: list[str] = field(default_factory=list)
