"""A model's directory on disk: its newest bundle, and the labels in its versions.toml.

`weir models label --models` and `weir rollback --models` edit labels without a server
(`bundle.version_labels`). A label is given only to a version on disk.
"""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from weir.bundle import repository
from weir.bundle.errors import BundleError
from weir.bundle.version_labels import write_labels
from weir.bundle.versions import (
    LABEL_FORM,
    STABLE,
    VersionsFile,
    is_label,
    is_version,
    read,
    versions_to_serve,
)
from weir.client.errors import UsageError


def find_bundle(path: Path) -> Path:
    """The version directory at `path`, or the newest of the model there; UsageError without one."""
    if (path / "model.onnx").exists() or (path / "model.json").exists():
        return path
    if not path.exists():
        raise UsageError(
            f"{path}: expected a bundle or a directory of versions, got no such directory"
        )
    try:
        found = repository.versions(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if not found and (path / "run.json").is_file():
        raise UsageError(
            f"{path}: expected a bundle, got a run of weir train; "
            f"weir export {shlex.quote(str(path))} --to models makes a bundle of it"
        )
    if not found:
        raise UsageError(f"{path}: neither a bundle nor a directory of versions")
    return path / str(found[-1])


def parse_assignments(texts: Iterable[str]) -> dict[str, int | None]:
    """Versions by label from `stable=2`; None from `stable=`, which removes the label."""
    labels: dict[str, int | None] = {}
    for label, version in map(_parse_assignment, texts):
        if label in labels:
            raise UsageError(f"{label}: expected once, got it twice")
        labels[label] = version
    return labels


def set_labels(models: Path, name: str, changes: Mapping[str, int | None]) -> None:
    """Give labels of a model to versions, or remove them (None); UsageError if that fails."""
    present, current = _read_directory(models, name)
    for label, version in changes.items():
        if version is None and label not in current.labels:
            listed = ", ".join(sorted(current.labels)) or "none"
            raise UsageError(f"{name}: expected a label among {listed}, got {label}=")
        if version is not None and version not in present:
            listed = ", ".join(map(str, present))
            raise UsageError(f"{name}: expected a version among {listed}, got {label}={version}")
    try:
        write_labels(models / name, changes)
    except BundleError as error:
        raise UsageError(f"{name}: {error}") from error
    except OSError as error:
        raise UsageError(f"{models / name}: {error.strerror or error}") from error


def roll_back(models: Path, name: str) -> tuple[int, int]:
    """Give `stable` to the version below the default one; returns the former and the new one."""
    present, current = _read_directory(models, name)
    stable = current.labels.get(STABLE)
    served = versions_to_serve(current, present)
    answering = stable if stable in served else max(served, default=None)
    if answering is None:
        raise UsageError(f"{name}: its versions.toml lets none of its versions answer")
    older = older_than(answering, present)
    if not older:
        raise UsageError(
            f"{name}: version {answering} answers, and on disk none is older than {answering}"
        )
    set_labels(models, name, {STABLE: older[0]})
    return answering, older[0]


def older_than(version: int, present: Iterable[int]) -> list[int]:
    """The versions below `version`, the highest first."""
    return sorted((each for each in present if each < version), reverse=True)


def _parse_assignment(text: str) -> tuple[str, int | None]:
    label, equals, number = text.partition("=")
    if not equals or not is_label(label):
        raise UsageError(
            f"expected LABEL=VERSION, or LABEL= to remove it, the label of {LABEL_FORM}, "
            f"got {text!r}"
        )
    is_number = len(number) < 19 and number.isascii() and number.isdecimal()
    version = int(number) if is_number else 0
    if number and not is_version(version):
        raise UsageError(f"{label}: expected a version from 1, got {number!r}")
    return label, version or None


def _read_directory(models: Path, name: str) -> tuple[list[int], VersionsFile]:
    """A model's versions on disk, and the content of its versions.toml."""
    try:
        repository.check_name(name)
        present = repository.versions(models / name)
        if not present:
            raise UsageError(f"{models / name}: expected a directory of versions, got none")
        return present, read(models / name)
    except BundleError as error:
        raise UsageError(f"{name}: {error}") from error
    except OSError as error:
        raise UsageError(f"{models / name}: {error.strerror}") from error
