"""Pairs of texts, one to be turned into the other, as every set of pairs here yields them.

A row is a source and every target that is accepted for it: a word has several pronunciations. Texts are kept
as they are written; how they become tokens differs by side and recipe (see `weir.training.data.segment`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from weir.training.data.images import Division, Rows, divide
from weir.training.errors import DataError


class Pair(NamedTuple):
    """A source and one of its targets."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class PairData:
    """One split of a set of pairs.

    sources: the text of each row.
    references: of each row, the targets that are accepted, each once, the first one listed first.
    checksum: SHA-256 over the source files of all splits.
    """

    name: str
    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    checksum: str

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.references):
            raise DataError(
                f"{self.name}: {len(self.sources)} sources do not go with targets of {len(self.references)}"
            )
        for number, (source, targets) in enumerate(zip(self.sources, self.references, strict=True)):
            if not source.strip():
                raise DataError(f"{self.name}, row {number}: expected a source, found {source!r}")
            if not targets or not all(map(str.strip, targets)):
                raise DataError(f"{self.name}, row {number}: expected targets, found {targets!r}")
            if len(set(targets)) < len(targets):
                raise DataError(
                    f"{self.name}, row {number}: expected each target once, found {targets!r}"
                )

    @staticmethod
    def of(name: str, pairs: Iterable[Pair], *, checksum: str) -> "PairData":
        """A row a pair, as translations are."""
        found = tuple(pairs)
        return PairData(
            name=name,
            sources=tuple(pair.source for pair in found),
            references=tuple((pair.target,) for pair in found),
            checksum=checksum,
        )

    @staticmethod
    def joined(name: str, pairs: Iterable[Pair], *, checksum: str) -> "PairData":
        """A row a source, as dictionaries are: one that comes again brings a further target."""
        # A dict, for it keeps the order and each target once.
        found: dict[str, dict[str, None]] = {}
        for pair in pairs:
            found.setdefault(pair.source, {})[pair.target] = None
        return PairData(name, tuple(found), tuple(map(tuple, found.values())), checksum)

    def __len__(self) -> int:
        return len(self.sources)

    def pairs(self) -> Iterator[Pair]:
        """Every source with every one of its targets, to learn from."""
        for source, targets in zip(self.sources, self.references, strict=True):
            for target in targets:
                yield Pair(source, target)

    def take(self, rows: Rows) -> "PairData":
        """The same set with these rows only, in this order."""
        return PairData(
            self.name,
            tuple(self.sources[row] for row in rows),
            tuple(self.references[row] for row in rows),
            self.checksum,
        )


def divide_pairs(data: PairData, share: float, seed: int) -> Division:
    """Hold out a share of the different sources, at least one; rows of one source stay together.

    Depends on nothing but its arguments, as `weir.training.data.images.divide`.
    """
    numbers: dict[str, int] = {}
    source_of_row = [numbers.setdefault(source, len(numbers)) for source in data.sources]
    held_out = divide(np.zeros(len(numbers), np.int64), share, seed).held_out
    is_held_out = np.isin(np.array(source_of_row, np.int64), held_out)
    return Division(kept=np.flatnonzero(~is_held_out), held_out=np.flatnonzero(is_held_out))
