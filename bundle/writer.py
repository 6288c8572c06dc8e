"""Writer of bundles: publishes a bundle by an atomic rename.

Rules:

- All files are written into a hidden directory beside the target, `model.json` last. They are
  flushed to disk before the rename that publishes them, so a reader sees a whole bundle or none.
- The bundle is read back with the server's reader before the rename.
- A rename onto a non-empty directory fails, and a published directory is never empty. So a writer
  notices if another one has published the same version.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from weir.bundle import contract as contracts
from weir.bundle import reader
from weir.bundle.contract import Contract
from weir.bundle.errors import BrokenBundle, BundleError, InvalidName, VersionExists
from weir.bundle.repository import check_name, versions

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def write(
    files: Mapping[str, bytes],
    contract: Contract,
    models: Path,
    name: str,
    version: int | None = None,
) -> Path:
    """Publish `files` as `<models>/<name>/<version>/` and return that directory.

    `files` has every file except `model.json`. The contract's own `files` are filled in here. The
    version is by default the next free one.

    Raises:
        InvalidName: the model's name is not allowed.
        VersionExists: `version` exists; it is left unchanged.
        BrokenBundle: the reader rejects the result; nothing is published.
    """
    check_target(models, name, version)
    text = _contract_text(files, contract)
    model_directory = _model_directory(models, name)
    hidden = Path(tempfile.mkdtemp(prefix=".publishing-", dir=model_directory))
    try:
        _fill(hidden, files, text)
        reader.read(hidden)
        target = _rename(hidden, model_directory, version)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    _sync(model_directory)
    return target


def check_target(models: Path, name: str, version: int | None) -> None:
    """Raise InvalidName or VersionExists as a later `write` would, before expensive work."""
    check_name(name)
    if version is None:
        return
    if not 1 <= version < 10**18:
        raise BundleError(f"version: expected a number from 1, got {version}")
    if os.path.lexists(models / name / str(version)):
        raise _exists(models / name / str(version))


def _exists(target: Path) -> VersionExists:
    return VersionExists(f"{target}: this version exists already")


def _contract_text(files: Mapping[str, bytes], contract: Contract) -> bytes:
    """The bytes of `model.json`; parsing checks that file names are plain."""
    if contracts.FILE_NAME in files:
        raise BrokenBundle(f"{contracts.FILE_NAME}: expected only a contract, got a file too")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    complete = contract.model_copy(update={"files": hashes})
    text = (complete.model_dump_json(indent=2) + "\n").encode()
    contracts.parse(text)
    return text


def _model_directory(models: Path, name: str) -> Path:
    directory = models / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidName(f"{directory}: expected a directory: {error.strerror}") from error
    return directory


def _fill(directory: Path, files: Mapping[str, bytes], contract_text: bytes) -> None:
    # mkdtemp and the umask may make it private; a server usually runs as another user.
    directory.chmod(0o755)
    for name, data in [*files.items(), (contracts.FILE_NAME, contract_text)]:
        path = directory / name
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o644)
    _sync(directory)


def _rename(hidden: Path, model_directory: Path, version: int | None) -> Path:
    """Rename the finished directory to `version`, or to the first free number."""
    number = version or max(versions(model_directory), default=0) + 1
    while True:
        target = model_directory / str(number)
        try:
            hidden.rename(target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            if version is not None:
                raise _exists(target) from error
            number += 1
        else:
            return target


def _sync(directory: Path) -> None:
    """Flush the entries of a directory to disk, on POSIX systems."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lines_of(texts: Iterable[str]) -> bytes:
    """A text file with one entry a line."""
    return "".join(f"{text}\n" for text in texts).encode()


def vocabulary_file(name: str) -> str:
    """The file name of an input's vocabulary."""
    return f"vocabulary.{name}.txt"


def name_label_files(labels: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], str]:
    """A file name for each distinct list of labels; outputs often share a list."""
    distinct = dict.fromkeys(tuple(each) for each in labels.values())
    return {
        each: "labels.txt" if number == 0 else f"labels.{number}.txt"
        for number, each in enumerate(distinct)
    }
