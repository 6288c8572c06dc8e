"""Which rows of `weir evaluate --data` are asked.

    a set by its name               its test set
    the file that was trained on    what training holds out of it
    any other file                  all of it

Files are told apart by the checksum that the bundle recorded.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar


class Checksummed(Protocol):
    """Rows of a file."""

    @property
    def checksum(self) -> str:
        """SHA-256 over the file."""
        ...


_Rows = TypeVar("_Rows")
_Read = TypeVar("_Read", bound=Checksummed)


@dataclass(frozen=True, slots=True)
class Asked(Generic[_Rows]):
    """Rows to ask.

    Attributes:
        why: which ones these are, in words.
        is_other: whether they are none that training measured, as far as the bundle knows.
    """

    rows: _Rows
    why: str
    is_other: bool = False


def choose(
    data: str,
    sets: Collection[str],
    recorded: str | None,
    *,
    whole: Callable[[], _Read],
    held_out: Callable[[], _Read],
) -> Asked[_Read]:
    """The rows of `data` that are asked.

    Args:
        data: a set's name or a file.
        sets: the names that are known.
        recorded: the checksum of the data that the bundle was trained on; None if it was trained elsewhere.
        whole: reads all of a file.
        held_out: reads the test set of a set, or what training holds out of a file.
    """
    if data in sets:
        return Asked(held_out(), f"the test set of {data}")
    if Path(data).is_file() and (found := whole()).checksum != recorded:
        return Asked(found, f"all of {data}, which the bundle was not trained on", is_other=True)
    return Asked(held_out(), f"what training held out of {data}")
