"""Where the files of a data set come from: a folder of yours, the cache, or the canonical download.

In this order, for each file:
1. the folder that the environment variable WEIR_DATA names;
2. `weir/data` under the user's cache directory;
3. a download over HTTPS into that cache, announced, and renamed into place only once its SHA-256 is right.

A file that is found but has another checksum is an error, never a reason to look further. In 1 and 2 a file
may also lie gzipped, with `.gz` after its name; the checksum is then that of what is in it.
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
    """A file of a data set: its canonical address, and the proof that it is the right one."""

    url: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name without the folder."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that are looked into."""

    folder: Path | None
    cache: Path

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> "Places":
        """What WEIR_DATA and the platform's cache convention say.

        Raises:
            DataError: WEIR_DATA names no folder.
        """
        named = environment.get("WEIR_DATA")
        if named and not Path(named).is_dir():
            raise DataError(f"WEIR_DATA: expected a folder, found none at {named}")
        return Places(Path(named) if named else None, _user_cache(environment) / "weir" / "data")


def _user_cache(environment: Mapping[str, str]) -> Path:
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def locate(data: str, file: RemoteFile, places: Places) -> Path:
    """The verified file on this machine, plain or gzipped, downloaded if need be.

    Raises:
        DataError: a file of this name is here, but it is another one.
        DownloadError: it is not here and could not be fetched whole.
    """
    for folder in filter(None, (places.folder, places.cache)):
        for name in (file.name, f"{file.name}.gz"):
            path = folder / data / name
            if path.is_file():
                _require_checksum(path, file)
                return path
    path = places.cache / data / file.name
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
        raise DataError(f"{path}: expected SHA-256 {file.sha256}, found {found}")


def _unpacked_checksum(path: Path) -> str:
    try:
        with gzip.open(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a gzip file, found {error}") from error


def download(file: RemoteFile, path: Path) -> None:
    """Fetch a file to `path`; it appears there whole and verified, or not at all.

    Raises:
        DownloadError: no connection, or not the file that was expected.
    """
    address = urlsplit(file.url)
    if address.scheme != "https" and address.hostname != "127.0.0.1":
        raise DownloadError(f"{file.url}: expected an https address")
    # A warning, because those are shown even where nobody set logging up: never silent.
    logger.warning("downloading %s (%.1f MB) to %s", file.url, file.size_bytes / 1e6, path)
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
    """Copy the file into the stream, and no byte more than it has."""
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
            f"found {found} bytes with {digest.hexdigest()}"
        )
