"""Files of a model repository: opened and read without following links that are not permitted.

Rules:

- Only regular files are read; a file with several hard links is one.
- Without link roots, a link in place of a file, a version's directory or the model's is refused.
- With link roots, a link is resolved once, its target must be below one of them, and the target is
  opened by its real path: a directory of it that becomes a link meanwhile is refused.
- A file that changes as it is read is refused. Memory holds what was read, so a later change of
  the file has no effect.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weir.bundle.errors import BrokenBundle

MAX_FILE_BYTES = (1 << 31) - 1
"""The default limit of a file: a protobuf message, and so an ONNX file, ends at 2 GiB."""

# Without O_NONBLOCK, opening a named pipe would block for ever.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
_DIRECTORY_FLAGS = _FLAGS | getattr(os, "O_DIRECTORY", 0)
_LINK = "a link, which weir serve --follow-links follows"


@dataclass(frozen=True, slots=True)
class LinkRoots:
    """Directories that the links of a repository may lead into; without any, links are refused."""

    directories: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.directories)

    def resolve(self, path: Path) -> tuple[Path, Path]:
        """The real path, and the root that it is or is below; BrokenBundle if there is none."""
        try:
            real = Path(os.path.realpath(path, strict=True))
        except OSError as error:
            raise BrokenBundle(
                f"{path.name}: expected a path that leads somewhere: {error.strerror}"
            ) from error
        for directory in self.directories:
            # Resolved each time: the root may be a link that is replaced.
            root = Path(os.path.realpath(directory))
            if root in (real, *real.parents):
                return real, root
        raise BrokenBundle(
            f"{path.name}: expected a link into the repository or a link root "
            "(weir serve --link-roots), got one that leads elsewhere"
        )


NO_LINKS = LinkRoots()


def read_file(path: Path, limit_bytes: int = MAX_FILE_BYTES, links: LinkRoots = NO_LINKS) -> bytes:
    """Read a regular file; BrokenBundle if it is a link, another kind of file, or too large."""
    try:
        descriptor = _open(path, links)
    except OSError as error:
        kind = _LINK if path.is_symlink() and not links else f"an error: {error.strerror}"
        raise BrokenBundle(f"{path.name}: expected a regular file, got {kind}") from error
    try:
        status = os.fstat(descriptor)
        _check_status(path.name, status, limit_bytes)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(status.st_size + 1)
    except OSError as error:
        raise BrokenBundle(f"{path.name}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise BrokenBundle(
            f"{path.name}: a file of {status.st_size} bytes needs more memory than there is"
        ) from error
    finally:
        os.close(descriptor)
    if len(data) != status.st_size:
        raise BrokenBundle(
            f"{path.name}: expected {status.st_size} bytes, it changes as it is read"
        )
    return data


@contextmanager
def version_directory(directory: Path, links: LinkRoots) -> Iterator[Path]:
    """The real directory of a version, to read its files from.

    Raises:
        BrokenBundle: it or the model directory above it is a link; with link roots, a link led
            elsewhere when the block ended than when it began.
    """
    real = real_directory(directory, links)
    if not links:
        yield real
        return
    before = _targets(directory)
    yield real
    if _targets(directory) != before:
        raise BrokenBundle(f"{directory.name}: expected links that stay, one changed meanwhile")


def real_directory(directory: Path, links: LinkRoots) -> Path:
    """The absolute directory, without links in it if links are followed.

    BrokenBundle if it or the directory above it is a link that may not be followed.
    """
    # `resolve` would follow the links that this check must find.
    directory = Path(os.path.abspath(directory))  # noqa: PTH100
    parts = (directory.parent, directory)
    if links and any(part.is_symlink() for part in parts):
        real, _ = links.resolve(directory)
        check_directory(real, shown=directory)
        return real
    for part in parts:
        check_directory(part)
    return directory


def check_directory(path: Path, shown: Path | None = None) -> None:
    """Raise BrokenBundle unless a path is a directory, and no link; messages have `shown`."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BrokenBundle(f"{shown or path}: expected a directory: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise BrokenBundle(f"{shown or path}: expected a directory, got {_kind(mode)}")


def _open(path: Path, links: LinkRoots) -> int:
    if not links or not path.is_symlink():
        return os.open(path, _FLAGS)
    real, root = links.resolve(path)
    if real == root or os.open not in os.supports_dir_fd:
        return os.open(real, _FLAGS)
    *parents, name = real.relative_to(root).parts
    directory = os.open(root, _DIRECTORY_FLAGS)
    try:
        for parent in parents:
            inner = os.open(parent, _DIRECTORY_FLAGS, dir_fd=directory)
            os.close(directory)
            directory = inner
        return os.open(name, _FLAGS, dir_fd=directory)
    finally:
        os.close(directory)


def _targets(directory: Path) -> dict[str, str]:
    """The real path of a directory, and that of each link in it."""
    try:
        with os.scandir(directory) as entries:
            links = {
                entry.name: os.path.realpath(entry.path) for entry in entries if entry.is_symlink()
            }
    except OSError as error:
        raise BrokenBundle(f"{directory}: expected a directory: {error.strerror}") from error
    return {"": os.path.realpath(directory), **links}


def _check_status(name: str, status: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BrokenBundle(f"{name}: expected a regular file, got {_kind(status.st_mode)}")
    if status.st_size > limit_bytes:
        raise BrokenBundle(f"{name}: expected at most {limit_bytes} bytes, got {status.st_size}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: _LINK, stat.S_IFDIR: "a directory", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a special file")
