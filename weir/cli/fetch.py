"""`weir fetch`: copies models from a storage to a folder, whole or not at all.

Rules:

- KServe's storage library downloads into a hidden folder beside the target, which is locked.
- The target appears by a rename. A fetch that is killed leaves the hidden folder, which the next
  fetch to the same target removes.
- The library raises errors of every kind; all of them end here, as one line without credentials.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

from weir.cli.error_hints import requires
from weir.client.errors import UsageError, WeirError

# What the last part of an S3 address is if it is a file; else it is a folder.
_FILE_SUFFIXES = {".onnx", ".zip", ".tar", ".gz", ".tgz"}
_LOCAL = "file://"


def fetch(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI",
            help="s3://BUCKET/PATH, gs://BUCKET/PATH, hf://OWNER/NAME, https://HOST/FILE, "
            "oci://IMAGE, an address of Azure's storage, or a path. A zip or tar file is unpacked.",
        ),
    ],
    *,
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="The folder to make, with its files.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the folder if it exists.")
    ] = False,
) -> None:
    """Copy models from a storage to a folder, for `weir serve`.

    The folder appears when all files are there. Credentials come from the environment, as each
    storage's own tools read them. Needs the extra `fetch`.
    """
    target = Path(os.path.abspath(to))  # noqa: PTH100 - a link that is replaced is not followed
    shown = _without_credentials(uri)
    with _hidden_folder(target) as hidden:
        _check_target(target, replace=replace)
        files = hidden / "files"
        _download(uri, shown, files)
        found = sorted(path for path in files.rglob("*") if path.is_file())
        if not found:
            raise WeirError(f"{shown}: expected files, got none")
        _make_readable(files)
        size = sum(path.stat().st_size for path in found)
        names = _names(files)
        _publish(files, target, hidden / "replaced")
    typer.echo(f"{target}: {names} ({len(found)} files, {size / 1e6:,.1f} MB) from {shown}")


def _check_target(target: Path, *, replace: bool) -> None:
    if target.is_dir():
        if not replace and any(target.iterdir()):
            raise UsageError(f"{target}: exists; --replace replaces it")
    elif os.path.lexists(target):
        raise UsageError(f"{target}: expected a folder or nothing, got a file")


@contextmanager
def _hidden_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, locked; WeirError if another fetch has it."""
    # Not on Windows; here, so that the other verbs are.
    import fcntl

    hidden = target.parent / f".{target.name}.fetching"
    lock = None
    while lock is None:
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise UsageError(f"{hidden}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise WeirError(f"{target}: another fetch writes to it") from None
        if not _is_at(lock, hidden):
            # Another fetch removed it at its end, before this one had the lock.
            os.close(lock)
            lock = None
    try:
        _empty(hidden)
        yield hidden
    except OSError as error:
        # Also one of the caller's, such as of a full disk.
        raise WeirError(f"{error.filename or hidden}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(lock)


def _is_at(folder: int, path: Path) -> bool:
    """Whether the open folder is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(folder), path.stat())
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    """Remove what a killed fetch left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _download(uri: str, shown: str, files: Path) -> None:
    with requires("fetch"):
        from kserve_storage import Storage
    # It logs what it also raises, and each file.
    logging.getLogger("storage").addHandler(logging.NullHandler())
    # Hugging Face's caches; a container's home may be read-only, or small.
    os.environ.setdefault("HF_HOME", str(files.with_name("cache")))
    path = Path(uri.removeprefix(_LOCAL))
    is_local = uri.startswith(_LOCAL) or path.exists()
    address = f"{_LOCAL}{path.absolute()}" if is_local else _as_folder(uri)
    try:
        if is_local:
            # The library links local files.
            linked = files.with_name("linked")
            Storage.download(address, str(linked))
            shutil.copytree(linked, files)
        else:
            Storage.download(address, str(files))
    except (Exception, SystemExit) as error:
        detail = _redacted(str(error).replace(address, shown).replace(uri, shown), uri)
        raise WeirError(f"{shown}: {detail or type(error).__name__}") from error
    # Hugging Face's records of a download.
    shutil.rmtree(files / ".cache", ignore_errors=True)


def _as_folder(uri: str) -> str:
    """An S3 address of a folder with a slash.

    Without it the address is a prefix: `s3://models/lenet` would also bring `lenet5/1/`, as `5/1/`.
    """
    is_file = PurePosixPath(urlsplit(uri).path).suffix in _FILE_SUFFIXES
    return uri if is_file or not uri.startswith("s3://") or uri.endswith("/") else f"{uri}/"


def _without_credentials(uri: str) -> str:
    """An address without a password, and without a query, which may be a signature."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UsageError(f"expected an address: {error}") from None
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if re.match(r"\w+:", uri) else uri


def _redacted(message: str, uri: str) -> str:
    """A library's message without the credentials of the address, and of those it led to."""
    parts = urlsplit(uri)
    for secret in (parts.query, parts.netloc.rpartition("@")[0], parts.password):
        message = message.replace(secret, "...") if secret else message
    # A redirection leads to another address; some messages have only its path and query.
    message = re.sub(r"://[^\s/@]*@", "://", message)
    return re.sub(r"(?<=\S)\?[^\s'\"<>)]+", "", message)


def _make_readable(folder: Path) -> None:
    """A server usually runs as another user."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def _names(folder: Path) -> str:
    from weir.bundle.escaping import printable, short_list

    return short_list([printable(path.name) for path in sorted(folder.iterdir())])


def _publish(files: Path, target: Path, replaced: Path) -> None:
    try:
        if target.is_symlink() or (target.is_dir() and any(target.iterdir())):
            target.rename(replaced)
        files.rename(target)
    except OSError as error:
        if os.path.lexists(replaced):
            replaced.rename(target)
        raise WeirError(
            f"{target}: {error.strerror}; a mount point cannot be replaced, name a folder in it"
        ) from error
