"""Pairs of texts, the data of sequence to sequence, and the files of the user that hold them.

A row is a source with every accepted target: a word may have several pronunciations. Texts are kept
as written; the tokenizers differ by side and recipe (see `weir.training.data.tokenizer`).

Pairs come in one file or in two, plain or gzipped (see `weir.training.data.lines`):

    source<TAB>target                   a pair per line; a repeated source, or a further
                                        column, adds a further accepted target
    a.de beside a.en                    line 7 of one is the target of line 7 of the other

Blank lines are skipped; with two files, lines that are blank in both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weir.training.data.download import checksum as checksum_of
from weir.training.data.images import Division, Rows, combine_checksums, divide, group_equal
from weir.training.data.lines import read_lines
from weir.training.errors import DataError


class Pair(NamedTuple):
    """A source and one of its targets."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class PairData:
    """One split of a set of pairs.

    sources: the text of each row.
    references: the accepted targets of each row, each once, in the order of the files.
    checksum: SHA-256 over the source files of all splits.
    """

    name: str
    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    checksum: str

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.references):
            raise DataError(
                f"{self.name}: {len(self.sources)} sources do not go with targets of "
                f"{len(self.references)}"
            )
        for number, (source, targets) in enumerate(zip(self.sources, self.references, strict=True)):
            if not source.strip():
                raise DataError(f"{self.name}, row {number}: expected a source, got {source!r}")
            if not targets or not all(map(str.strip, targets)):
                raise DataError(f"{self.name}, row {number}: expected targets, got {targets!r}")
            if len(set(targets)) < len(targets):
                raise DataError(
                    f"{self.name}, row {number}: expected each target once, got {targets!r}"
                )

    @staticmethod
    def of(name: str, pairs: Iterable[Pair], *, checksum: str) -> "PairData":
        """One row per pair, as in a parallel corpus."""
        found = tuple(pairs)
        return PairData(
            name=name,
            sources=tuple(pair.source for pair in found),
            references=tuple((pair.target,) for pair in found),
            checksum=checksum,
        )

    @staticmethod
    def joined(name: str, pairs: Iterable[Pair], *, checksum: str) -> "PairData":
        """One row per source, as in a dictionary; a repeated source adds a target to its row."""
        # A dict keeps the order, and each target once.
        found: dict[str, dict[str, None]] = {}
        for pair in pairs:
            found.setdefault(pair.source, {})[pair.target] = None
        return PairData(name, tuple(found), tuple(map(tuple, found.values())), checksum)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def source_checksum(self) -> str:
        """SHA-256 of what this split was read from."""
        return self.checksum

    def pairs(self) -> Iterator[Pair]:
        """Every source with each of its targets, for training."""
        for source, targets in zip(self.sources, self.references, strict=True):
            for target in targets:
                yield Pair(source, target)

    def take(self, rows: Rows) -> "PairData":
        """The given rows, in the given order."""
        return PairData(
            self.name,
            tuple(self.sources[row] for row in rows),
            tuple(self.references[row] for row in rows),
            self.checksum,
        )


def divide_pairs(data: PairData, share: float, seed: int) -> Division:
    """Hold out a share of the different sources, at least one; rows of one source stay together."""
    source_of_row = group_equal(data.sources)
    sources = len(set(data.sources))
    held_out = divide(np.zeros(sources, np.int64), share, seed).held_out
    is_held_out = np.isin(source_of_row, held_out)
    return Division(kept=np.flatnonzero(~is_held_out), held_out=np.flatnonzero(is_held_out))


def load_pair_file(path: Path, target_path: Path | None = None) -> PairData:
    """Read a file of pairs, or files of sources and targets; `DataError` names file and line."""
    if target_path is None:
        name, digest = str(path.resolve()), checksum_of(path)
        data = PairData.joined(name, read_table(path), checksum=digest)
    else:
        name = f"{path.resolve()} and {target_path.resolve()}"
        digest = combine_checksums(
            [("source", checksum_of(path)), ("target", checksum_of(target_path))]
        )
        data = PairData.of(name, read_parallel(path, target_path), checksum=digest)
    if not len(data):
        raise DataError(f"{name}: expected pairs of text, got none")
    return data


def read_table(path: Path) -> Iterator[Pair]:
    """Read the pairs of a file of `source<TAB>target` lines; errors as `load_pair_file`."""
    for line in read_lines(path):
        if not line.text.strip():
            continue
        source, *targets = (column.strip() for column in line.text.split("\t"))
        if not (source and targets and all(targets)):
            raise DataError(f"{line.place}: expected source<TAB>target, got {line.text!r}")
        for target in targets:
            yield Pair(source, target)


def read_parallel(source_path: Path, target_path: Path) -> Iterator[Pair]:
    """Read the pairs of two files with equally many lines; errors as `load_pair_file`."""
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets):
        raise DataError(
            f"{target_path}: expected {len(sources)} lines, as {source_path} has, "
            f"got {len(targets)}"
        )
    for source, target in zip(sources, targets, strict=True):
        texts = Pair(source.text.strip(), target.text.strip())
        if not any(texts):
            continue
        if not all(texts):
            blank, other = (target, source) if texts.source else (source, target)
            raise DataError(
                f"{blank.place}: expected what goes with {other.text!r}, got {blank.text!r}"
            )
        yield texts
