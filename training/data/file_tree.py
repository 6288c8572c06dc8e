"""Where pictures lie: a folder, or a tar file with the same in it, read alike.

Names are relative to the place, hidden ones are passed over. A tar's one outermost folder is looked into as
if it were the tar, and nothing is unpacked to disk.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from weir.training.data.archive import list_members, read_members
from weir.training.data.download import checksum
from weir.training.data.images import combine_checksums

SPLITS = frozenset({"train", "test", "val"})
DEPTH = 3
"""Split, class, file."""


class Opened(NamedTuple):
    """A file that was asked for: its place in the question, and its content."""

    row: int
    stream: BinaryIO


@dataclass(frozen=True, slots=True)
class Tree:
    """What is there, unread.

    place: the folder or the tar file.
    folders, files: relative to it.
    read: gives the files asked for, once each, in an order of its own.
    digest: the SHA-256 that stands for these files.
    """

    place: Path
    folders: frozenset[PurePosixPath]
    files: frozenset[PurePosixPath]
    read: Callable[[Sequence[PurePosixPath]], Iterator[Opened]]
    digest: Callable[[Sequence[PurePosixPath]], str]


def open_tree(place: Path) -> Tree:
    """List a folder or a tar file.

    Raises:
        DataError: a file that is no tar file.
    """
    return _open_folder(place) if place.is_dir() else _open_tar(place)


def _open_folder(place: Path) -> Tree:
    folders: set[PurePosixPath] = set()
    files: set[PurePosixPath] = set()

    def walk(folder: Path, inside: PurePosixPath) -> None:
        for path in folder.iterdir():
            name = inside / path.name
            if path.name.startswith("."):
                continue
            if not path.is_dir():
                files.add(name)
            elif len(name.parts) < DEPTH:
                folders.add(name)
                walk(path, name)

    def read(names: Sequence[PurePosixPath]) -> Iterator[Opened]:
        for row, name in enumerate(names):
            with (place / name).open("rb") as stream:
                yield Opened(row, stream)

    def digest(names: Sequence[PurePosixPath]) -> str:
        return combine_checksums((str(name), checksum(place / name)) for name in names)

    walk(place, PurePosixPath())
    return Tree(place, frozenset(folders), frozenset(files), read, digest)


def _open_tar(place: Path) -> Tree:
    paths = [PurePosixPath(name) for name in list_members(place)]
    seen = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    outer = {path.parts[0] for path in seen if path.parts}
    skipped = 1 if len(outer) == 1 and not outer & SPLITS else 0
    files = frozenset(PurePosixPath(*path.parts[skipped:]) for path in seen)
    folders = frozenset(parent for file in files for parent in file.parents if parent.parts)

    def read(names: Sequence[PurePosixPath]) -> Iterator[Opened]:
        rows = {name: row for row, name in enumerate(names)}
        for member in read_members(place):
            # A name that comes twice counts once, as it does when a tar is unpacked.
            row = rows.pop(PurePosixPath(*PurePosixPath(member.name).parts[skipped:]), None)
            if row is not None:
                yield Opened(row, io.BytesIO(member.content))

    return Tree(place, folders, files, read, lambda _names: checksum(place))
