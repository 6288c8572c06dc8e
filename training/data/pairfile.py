"""Your own pairs, in one file or in two, plain or gzipped (see `weir.training.data.textfile`).

    source<TAB>target                   a pair a line; a source that comes again, or a further
                                        column, brings a further target that is accepted
    a.de beside a.en                    line 7 of one is the target of line 7 of the other

Blank lines are passed over; of two files, where both are blank.
"""

from collections.abc import Iterator
from pathlib import Path

from weir.training.data.download import checksum
from weir.training.data.images import combine_checksums
from weir.training.data.pairs import Pair, PairData
from weir.training.data.textfile import read_lines
from weir.training.errors import DataError


def load_pair_file(path: Path, target_path: Path | None = None) -> PairData:
    """All rows of a file of pairs, or of a file of sources and one of targets.

    Raises:
        DataError: names the file, the line, what was expected and what came.
    """
    if target_path is None:
        name, digest = str(path.resolve()), checksum(path)
        data = PairData.joined(name, read_table(path), checksum=digest)
    else:
        name = f"{path.resolve()} and {target_path.resolve()}"
        digest = combine_checksums([("source", checksum(path)), ("target", checksum(target_path))])
        data = PairData.of(name, read_parallel(path, target_path), checksum=digest)
    if not len(data):
        raise DataError(f"{name}: expected pairs of text, found none")
    return data


def read_table(path: Path) -> Iterator[Pair]:
    """The pairs of a file of `source<TAB>target` lines, under the same conditions."""
    for line in read_lines(path):
        if not line.text.strip():
            continue
        source, *targets = (column.strip() for column in line.text.split("\t"))
        if not (source and targets and all(targets)):
            raise DataError(f"{line.place}: expected source<TAB>target, found {line.text!r}")
        for target in targets:
            yield Pair(source, target)


def read_parallel(source_path: Path, target_path: Path) -> Iterator[Pair]:
    """The pairs of two files of as many lines, under the same conditions."""
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets):
        raise DataError(
            f"{target_path}: expected {len(sources)} lines, as {source_path} has, found {len(targets)}"
        )
    for source, target in zip(sources, targets, strict=True):
        texts = Pair(source.text.strip(), target.text.strip())
        if not any(texts):
            continue
        if not all(texts):
            blank, other = (target, source) if texts.source else (source, target)
            raise DataError(
                f"{blank.place}: expected what goes with {other.text!r}, found {blank.text!r}"
            )
        yield texts
