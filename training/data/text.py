"""Rows of tokens with labels, as every text set here yields them, and how a set is cut in two."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from weir.training.data.images import Division, Rows, divide
from weir.training.errors import DataError

SequenceSplit = Literal["train", "dev", "test"]


class TextRow(NamedTuple):
    """One example, as the readers of files yield it."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextData:
    """One split of a text set.

    rows: the tokens of each row.
    labels: of each row; one for each token where the set is tagged, else exactly one.
    is_tagged: whether tokens are labelled, or rows.
    checksum: SHA-256 over the source files of all splits.
    """

    name: str
    rows: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[str, ...], ...]
    is_tagged: bool
    checksum: str

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise DataError(
                f"{self.name}: {len(self.rows)} rows do not go with labels of {len(self.labels)}"
            )
        for number, (tokens, labels) in enumerate(zip(self.rows, self.labels, strict=True)):
            if not tokens:
                raise DataError(f"{self.name}, row {number}: expected tokens, found none")
            expected = len(tokens) if self.is_tagged else 1
            if len(labels) != expected:
                raise DataError(
                    f"{self.name}, row {number}: expected {expected} labels for {len(tokens)} tokens, found {len(labels)}"
                )

    @staticmethod
    def of(name: str, rows: Iterable[TextRow], *, is_tagged: bool, checksum: str) -> "TextData":
        """A set of rows that a reader yielded."""
        found = tuple(rows)
        return TextData(
            name=name,
            rows=tuple(row.tokens for row in found),
            labels=tuple(row.labels for row in found),
            is_tagged=is_tagged,
            checksum=checksum,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted; another split may lack some, or have others."""
        return tuple(sorted({label for labels in self.labels for label in labels}))

    def take(self, rows: Rows) -> "TextData":
        """The same set with these rows only, in this order."""
        return TextData(
            self.name,
            tuple(self.rows[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            self.is_tagged,
            self.checksum,
        )


def divide_text(data: TextData, share: float, seed: int) -> Division:
    """Hold out a share of each class, or of all rows where the set is tagged; at least one row.

    Depends on nothing but its arguments, as `weir.training.data.images.divide`.
    """
    places = {label: place for place, label in enumerate(data.classes)}
    labels = [0 if data.is_tagged else places[labels[0]] for labels in data.labels]
    return divide(np.array(labels, np.int64), share, seed)
