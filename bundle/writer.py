"""Publishes a bundle all at once.

Rules:

- Everything is written into a hidden directory beside the target, `model.json` last, and
  reaches the disk before the rename that publishes it: a reader sees all of it or nothing.
- What is about to be published is first read back with the server's own reader.
- A published directory is never empty, and a rename onto a non-empty directory fails: that
  failure is how two writers learn that they wanted the same number.
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

    Args:
        files: every file but `model.json`, by plain name.
        contract: what `model.json` is to say; its `files` are filled in here.
        models: the model repository; made if missing.
        name: the model's name.
        version: its number, the next free one by default.

    Raises:
        InvalidName: the model cannot be called that.
        VersionExists: `version` is already there; it stays as it was.
        BrokenBundle: a reader would refuse the result; nothing is published.
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
    """Raise what `write` would raise for its target, before the work that leads there.

    Raises:
        InvalidName: the model cannot be called that.
        VersionExists: something of that number is there.
    """
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
    """The bytes of `model.json`, checked: file names among them may not lead anywhere else."""
    if contracts.FILE_NAME in files:
        raise BrokenBundle(f"{contracts.FILE_NAME}: expected the contract alone to fill it")
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
    # mkdtemp and the umask may make it private; a server usually runs as somebody else.
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
    """Give the finished directory its number: the one asked for, or the first that is free."""
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
    """Make the names in a directory durable; only POSIX systems can."""
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
    """Where the vocabulary of an input is kept."""
    return f"vocabulary.{name}.txt"


def name_label_files(labels: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], str]:
    """A file for each different list of labels, given those of each output: outputs often share one."""
    different = dict.fromkeys(tuple(each) for each in labels.values())
    return {
        each: "labels.txt" if number == 0 else f"labels.{number}.txt"
        for number, each in enumerate(different)
    }
