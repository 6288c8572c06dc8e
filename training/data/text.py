"""Text sets: rows of tokens with labels, and a stratified split of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from weir.training.data.images import Division, Rows, divide
from weir.training.errors import DataError

SequenceSplit = Literal["train", "dev", "test"]


class TextRow(NamedTuple):
    """One example, as the readers of files return it.

    text: what the tokens were cut from, where the file says it.
    """

    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    text: str | None = None


@dataclass(frozen=True, slots=True)
class TextData:
    """One split of a text set.

    rows: the tokens of each row.
    labels: of each row: one per token if the set is tagged, otherwise exactly one.
    is_tagged: whether the labels belong to tokens (True) or to rows.
    checksum: SHA-256 over the source files of all splits.
    texts: of each row, what its tokens were cut from; None where the file does not say it. Empty if
        it says so of no row.
    """

    name: str
    rows: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[str, ...], ...]
    is_tagged: bool
    checksum: str
    texts: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise DataError(
                f"{self.name}: {len(self.rows)} rows do not go with labels of {len(self.labels)}"
            )
        for number, (tokens, labels) in enumerate(zip(self.rows, self.labels, strict=True)):
            if not tokens:
                raise DataError(f"{self.name}, row {number}: expected tokens, got none")
            expected = len(tokens) if self.is_tagged else 1
            if len(labels) != expected:
                raise DataError(
                    f"{self.name}, row {number}: expected {expected} labels for "
                    f"{len(tokens)} tokens, got {len(labels)}"
                )

    @staticmethod
    def of(name: str, rows: Iterable[TextRow], *, is_tagged: bool, checksum: str) -> "TextData":
        """The set of the given rows."""
        found = tuple(rows)
        texts = tuple(row.text for row in found)
        return TextData(
            name=name,
            rows=tuple(row.tokens for row in found),
            labels=tuple(row.labels for row in found),
            is_tagged=is_tagged,
            checksum=checksum,
            texts=texts if any(texts) else (),
        )

    @property
    def source_checksum(self) -> str:
        """SHA-256 of what this split was read from."""
        return self.checksum

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur in this split, sorted; other splits may have others."""
        return tuple(sorted({label for labels in self.labels for label in labels}))

    def take(self, rows: Rows) -> "TextData":
        """The given rows, in the given order."""
        return TextData(
            self.name,
            tuple(self.rows[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            self.is_tagged,
            self.checksum,
            tuple(self.texts[row] for row in rows) if self.texts else (),
        )


def divide_text(data: TextData, share: float, seed: int) -> Division:
    """Hold out a share of each class, or of all rows if the set is tagged; at least one row.

    Rows with the same tokens stay together.
    """
    places = {label: place for place, label in enumerate(data.classes)}
    labels = [0 if data.is_tagged else places[labels[0]] for labels in data.labels]
    return divide(np.array(labels, np.int64), share, seed, data.rows)
