"""Editor of the labels in a model's `versions.toml`.

Rules:

- The file is replaced as a whole: a reader sees the old content or the new one, also after a crash.
- Only the labels' lines change: comments, order and policy stay.
- A table that its last label leaves without a line is removed, and so is an empty file.
- A link is neither followed nor replaced.
"""

import os
import tempfile
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import tomlkit
from tomlkit.exceptions import TOMLKitError

from weir.bundle.errors import InvalidVersions
from weir.bundle.versions import FILE_NAME, VersionsFile, parse, read


def write_labels(model_directory: Path, changes: Mapping[str, int | None]) -> None:
    """Set labels of a model to versions, or remove them (None).

    Raises:
        InvalidVersions: the file is invalid, or cannot be edited in its form.
        BrokenBundle: the file is a link, or cannot be read.
        OSError: the file cannot be written.
    """
    before = read(model_directory)
    wanted = {**before.labels, **changes}
    labels = {label: version for label, version in wanted.items() if version is not None}
    if labels == before.labels:
        return
    path = model_directory / FILE_NAME
    try:
        edited = _edit(path.read_bytes().decode() if path.exists() else "", changes)
        is_exact = parse(edited.encode()) == VersionsFile(before.policy, MappingProxyType(labels))
    # tomlkit passes on the errors of Python's containers.
    except (TOMLKitError, TypeError, KeyError) as error:
        raise InvalidVersions(f"{FILE_NAME}: cannot be edited: {error}; edit it by hand") from error
    if not is_exact:
        raise InvalidVersions(f"{FILE_NAME}: cannot be edited in this form; edit it by hand")
    if edited:
        _replace(path, edited)
    else:
        path.unlink(missing_ok=True)
        _sync_directory(model_directory)


def _edit(text: str, changes: Mapping[str, int | None]) -> str:
    """The text of a versions.toml with labels changed; everything else stays as it is."""
    document = tomlkit.parse(text)
    if "labels" not in document:
        document.add("labels", tomlkit.table())
    labels = document["labels"]
    if not isinstance(labels, MutableMapping):
        raise TypeError(labels)
    for label, version in changes.items():
        if version is not None:
            labels[label] = version
        elif label in labels:
            del labels[label]
    edited = tomlkit.dumps(document)
    return edited if labels else _without_empty_table(document, edited)


def _without_empty_table(document: tomlkit.TOMLDocument, edited: str) -> str:
    """The text without its empty table of labels, unless a comment would go with it."""
    document.remove("labels")
    rest = tomlkit.dumps(document)
    if rest.count("#") < edited.count("#"):
        return edited
    return f"{rest.rstrip()}\n" if rest.strip() else ""


def _replace(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        # The server usually runs as another user.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Write the directory's entries to the disk, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
