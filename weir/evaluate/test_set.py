"""Test sets as requests: labelled rows, and the choice of the rows that `weir evaluate` sends.

    --data is                       rows
    the name of a data set          its test set
    the file that was trained on    the part that training held out
    any other file                  all of it

The bundle's checksum of its training data tells the files apart.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

NO_TARGET = -100
"""Target of the padding behind a sentence."""


@dataclass(frozen=True, slots=True)
class LabelledRequest:
    """One request with its targets.

    Attributes:
        inputs: arrays by input name.
        targets: class ids (rows,) or (rows, steps); for a series the values (rows, horizon); for
            pairs each row's index in the test set.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[Any]

    @property
    def target_count(self) -> int:
        """Number of targets, without padding."""
        return int((self.targets != NO_TARGET).sum())


@dataclass(frozen=True, slots=True)
class ClassifiedSet:
    """A test set of classes, each answer right or wrong.

    Attributes:
        requests: in the order to send them.
        origin: which rows these are, for the user.
        is_unseen: whether training measured other rows than these, as far as the bundle knows.
    """

    requests: list[LabelledRequest]
    origin: str
    is_unseen: bool = False


class Checksummed(Protocol):
    """Rows of a file."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the file."""


Rows = TypeVar("Rows")
_Read = TypeVar("_Read", bound=Checksummed)


@dataclass(frozen=True, slots=True)
class Selection(Generic[Rows]):
    """Rows to send; `origin` and `is_unseen` as of `ClassifiedSet`."""

    rows: Rows
    origin: str
    is_unseen: bool = False


def select_rows(
    data: str,
    sets: Collection[str],
    trained_checksum: str | None,
    *,
    read_all: Callable[[], _Read],
    read_test: Callable[[], _Read],
) -> Selection[_Read]:
    """The rows of `data`, which is one of the `sets` or a file, to send.

    `read_all` reads a whole file, `read_test` the test set of a data set or the held-out part of a
    file. `trained_checksum` is that of the bundle's training data, if recorded.
    """
    if data in sets:
        return Selection(read_test(), f"the test set of {data}")
    if Path(data).is_file() and (rows := read_all()).checksum != trained_checksum:
        origin = f"all of {data}, which the bundle was not trained on"
        return Selection(rows, origin, is_unseen=True)
    return Selection(read_test(), f"what training held out of {data}")
