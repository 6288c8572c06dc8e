"""Files of data sets: found in a folder, in the cache, or downloaded and verified.

The search order for each file:
1. the folder in the environment variable WEIR_DATA;
2. `weir/data` under the user's cache directory;
3. a download over HTTPS into that cache. It is logged, and the file is renamed into place only
   after its SHA-256 matches.

A file with another checksum is an error; the search does not continue. In 1 and 2 a file may also
be gzipped, with `.gz` after its name; the checksum is then that of its content.
"""

import gzip
import hashlib
import http.client
import logging
import os
import sys
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from weir.training.errors import DataError, DownloadError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a data set: its canonical address, and the size and checksum it must have."""

    url: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return self.url.rsplit("/", 1)[-1]


def remote_files(base: str, table: str) -> dict[str, RemoteFile]:
    """The files below one address, by name, from lines of `SHA-256 size name`."""
    rows = (line.split() for line in table.splitlines())
    return {name: RemoteFile(base + name, int(size), digest) for digest, size, name in rows}


@dataclass(frozen=True, slots=True)
class DataFolders:
    """The folders that are searched for files: the user's, then the cache."""

    folder: Path | None
    cache: Path

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> "DataFolders":
        """The folder WEIR_DATA, `DataError` if it is none, and the platform's cache folder."""
        named = environment.get("WEIR_DATA")
        if named and not Path(named).is_dir():
            raise DataError(f"WEIR_DATA: expected a folder, got none at {named}")
        return DataFolders(
            Path(named) if named else None, _user_cache(environment) / "weir" / "data"
        )


def _user_cache(environment: Mapping[str, str]) -> Path:
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def locate(data: str, file: RemoteFile, folders: DataFolders) -> Path:
    """Find a verified file, plain or gzipped; download it if it is not present.

    Raises:
        DataError: a file of this name is present and has another checksum.
        DownloadError: the file is not present and could not be downloaded.
    """
    for folder in filter(None, (folders.folder, folders.cache)):
        for name in (file.name, f"{file.name}.gz"):
            path = folder / data / name
            if path.is_file():
                _require_checksum(path, file)
                return path
    path = folders.cache / data / file.name
    try:
        download(file, path)
    except DownloadError as error:
        raise DownloadError(
            f"{error}; it may also be put as {data}/{file.name} into a folder that WEIR_DATA names"
        ) from error
    return path


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_checksum(path: Path, file: RemoteFile) -> None:
    found = checksum(path) if path.name == file.name else _unpacked_checksum(path)
    if found != file.sha256:
        raise DataError(f"{path}: expected SHA-256 {file.sha256}, got {found}")


def _unpacked_checksum(path: Path) -> str:
    try:
        with gzip.open(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a gzip file, got {error}") from error


def download(file: RemoteFile, path: Path) -> None:
    """Download a file to `path`: it is complete and verified there, or absent (`DownloadError`)."""
    address = urlsplit(file.url)
    if address.scheme != "https" and address.hostname != "127.0.0.1":
        raise DownloadError(f"{file.url}: expected an https address")
    # A warning, because warnings are shown even without a logging configuration.
    logger.warning(
        "downloading data file url=%s size_mb=%.1f path=%s", file.url, file.size_bytes / 1e6, path
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
        try:
            with open(descriptor, "wb") as stream:  # noqa: PTH123  a descriptor, not a path
                _fetch(file, stream)
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{file.url}: could not be fetched to {path}: {error}") from error


def _fetch(file: RemoteFile, stream: BinaryIO) -> None:
    """Copy the response into the stream, at most one byte more than the file has."""
    digest = hashlib.sha256()
    left = file.size_bytes + 1
    with urllib.request.urlopen(file.url, timeout=TIMEOUT_S) as answer:  # noqa: S310  checked above
        while left and (chunk := answer.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            stream.write(chunk)
            left -= len(chunk)
    if digest.hexdigest() != file.sha256:
        found = file.size_bytes + 1 - left
        raise DownloadError(
            f"{file.url}: expected {file.size_bytes} bytes with SHA-256 {file.sha256}, "
            f"got {found} bytes with {digest.hexdigest()}"
        )
