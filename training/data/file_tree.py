"""Trees of files in a folder or in a tar file, read alike.

Names are relative to the root. Hidden files and those of operating systems are skipped, and so are
links without a target. If a tar file has a single outermost folder, the tree begins inside it. Tar
files are read as a stream and never unpacked to disk.
"""

import functools
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from weir.training.data.download import checksum
from weir.training.data.images import combine_checksums
from weir.training.errors import DataError

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
"""Names of the folders of a split, in any case; the first that is there counts."""

_SYSTEM_NAMES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)


class Member(NamedTuple):
    """A file in a tar: its name there, and its content."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """The names in a folder or tar file, and functions that read them.

    root: the folder or the tar file.
    folders, files: relative to it.
    read: yields index and content of each requested file once, in any order.
    digest: the SHA-256 of the given files, named from the given folder; for a tar, that of the
        whole tar.
    """

    root: Path
    folders: frozenset[PurePosixPath]
    files: frozenset[PurePosixPath]
    read: Callable[[Sequence[PurePosixPath]], Iterator[tuple[int, BinaryIO]]]
    digest: Callable[[Sequence[PurePosixPath], PurePosixPath], str]


def open_tree(root: Path) -> Tree:
    """List a folder or a tar file; errors as `read_members`."""
    if root.is_dir():
        return _open_folder(root)
    if root.suffix.lower() == ".zip":
        raise DataError(f"{root}: expected a folder or a tar file; unpack it and name the folder")
    return _open_tar(root)


def read_members(path: Path) -> Iterator[Member]:
    """Read the files in a tar, in its order, not links and devices; `DataError` if it is broken."""
    try:
        # A stream: seeking in a gzipped tar would read it again from the start.
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is not None:
                    yield Member(member.name, stream.read())
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: expected a tar file, got {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """`tarfile` lists what each compression says on a line of its own."""
    return " ".join(str(error).split())


def _list_members(path: Path) -> list[str]:
    """The names of the files that `read_members` reads; same errors."""
    try:
        with tarfile.open(path) as tar:
            return [member.name for member in tar if member.isreg()]
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: expected a tar file, got {_one_line(error)}") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _open_folder(root: Path) -> Tree:
    folders: set[PurePosixPath] = set()
    files: set[PurePosixPath] = set()
    # A file counts for its split and for the whole folder, and is read once.
    digest_of = functools.cache(checksum)

    def walk(folder: Path, inside: PurePosixPath, above: frozenset[Path]) -> None:
        for path in folder.iterdir():
            name = inside / path.name
            if _is_hidden(path.name):
                continue
            if path.is_file():
                files.add(name)
            # A link may lead back to a folder that it lies in.
            elif path.is_dir() and (real := path.resolve()) not in above:
                folders.add(name)
                walk(path, name, above | {real})

    def read(names: Sequence[PurePosixPath]) -> Iterator[tuple[int, BinaryIO]]:
        for row, name in enumerate(names):
            with (root / name).open("rb") as stream:
                yield row, stream

    def digest(names: Sequence[PurePosixPath], folder: PurePosixPath) -> str:
        return combine_checksums(
            (str(name.relative_to(folder)), digest_of(root / name)) for name in names
        )

    walk(root, PurePosixPath(), frozenset({root.resolve()}))
    return Tree(root, frozenset(folders), frozenset(files), read, digest)


def _open_tar(root: Path) -> Tree:
    paths = [PurePosixPath(name) for name in _list_members(root)]
    seen = [path for path in paths if not any(map(_is_hidden, path.parts))]
    outer = {path.parts[0] for path in seen if path.parts}
    is_split = any(name.lower() in (*TRAIN_FOLDERS, *TEST_FOLDERS) for name in outer)
    skipped = 1 if len(outer) == 1 and not is_split else 0
    files = frozenset(PurePosixPath(*path.parts[skipped:]) for path in seen)
    folders = frozenset(parent for file in files for parent in file.parents if parent.parts)
    digest_of = functools.cache(checksum)

    def read(names: Sequence[PurePosixPath]) -> Iterator[tuple[int, BinaryIO]]:
        rows = {name: row for row, name in enumerate(names)}
        for member in read_members(root):
            # A repeated name counts once, as when a tar is unpacked.
            row = rows.pop(PurePosixPath(*PurePosixPath(member.name).parts[skipped:]), None)
            if row is not None:
                yield row, io.BytesIO(member.content)

    return Tree(root, folders, files, read, lambda _names, _folder: digest_of(root))
