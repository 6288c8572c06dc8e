"""Tar files of pictures, read as a stream and never unpacked to disk."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from weir.training.errors import DataError


class Member(NamedTuple):
    """A file in a tar: its name there, and its content."""

    name: str
    content: bytes


def list_members(path: Path) -> list[str]:
    """The names of the files in a tar, in its order; links and devices are passed over.

    Raises:
        DataError: no tar file, or one that is cut short.
    """
    try:
        with tarfile.open(path) as tar:
            return [member.name for member in tar if member.isreg()]
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: expected a tar file, found {error}") from error


def read_members(path: Path) -> Iterator[Member]:
    """The files in a tar, one after the other, as `list_members` lists them.

    Raises:
        DataError: as `list_members`.
    """
    try:
        # A stream: a gzipped tar cannot be sought in without being read anew.
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is not None:
                    yield Member(member.name, stream.read())
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: expected a tar file, found {error}") from error
