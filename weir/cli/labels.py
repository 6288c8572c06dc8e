"""Labels in a repository on disk: what `weir models label` and `weir rollback` do without a server.

Rules:

- Only `<models>/<name>/versions.toml` is written, all at once; its policy and its other labels stay,
  its comments do not.
- A label is given only to a version that is there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from weir.bundle import repository
from weir.bundle.errors import BundleError
from weir.bundle.versions import (
    LABEL_FORM,
    STABLE,
    Versions,
    is_label,
    is_version,
    read,
    wanted,
    write,
)
from weir.client.errors import UsageError


def parse_assignments(texts: Iterable[str]) -> dict[str, int | None]:
    """Versions by label, None to remove it, from `stable=2` or `stable=`.

    Raises:
        UsageError: one is neither, or two are of the same label.
    """
    labels: dict[str, int | None] = {}
    for label, version in map(_parse_assignment, texts):
        if label in labels:
            raise UsageError(f"{label}: expected once, got it twice")
        labels[label] = version
    return labels


def set_labels(models: Path, name: str, wanted_labels: Mapping[str, int | None]) -> None:
    """Give labels of a model to versions, or remove them (None).

    Raises:
        UsageError: there is no such model, version or label, or its `versions.toml` cannot be read or written.
    """
    present, said = _look(models, name)
    labels = dict(said.labels)
    for label, version in wanted_labels.items():
        if version is None and label not in said.labels:
            listed = ", ".join(sorted(said.labels)) or "none"
            raise UsageError(f"{name}: expected a label among {listed}, got {label}=")
        if version is None:
            del labels[label]
        elif version not in present:
            listed = ", ".join(map(str, present))
            raise UsageError(f"{name}: expected a version among {listed}, got {label}={version}")
        else:
            labels[label] = version
    try:
        write(models / name, replace(said, labels=labels))
    except OSError as error:
        raise UsageError(f"{models / name}: {error.strerror or error}") from error


def roll_back(models: Path, name: str) -> tuple[int, int]:
    """Make the version below the one that answers the `stable` one; both, the former first.

    Raises:
        UsageError: as `set_labels`, or there is no older version.
    """
    present, said = _look(models, name)
    stable = said.labels.get(STABLE)
    served = wanted(said, present)
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


def older_than(former: int, present: Iterable[int]) -> list[int]:
    """The versions below one, the highest first."""
    return sorted((version for version in present if version < former), reverse=True)


def _parse_assignment(text: str) -> tuple[str, int | None]:
    label, equals, number = text.partition("=")
    if not equals or not is_label(label):
        raise UsageError(
            f"expected LABEL=VERSION, or LABEL= to remove it, the label of {LABEL_FORM}, got {text!r}"
        )
    is_number = len(number) < 19 and number.isascii() and number.isdecimal()
    version = int(number) if is_number else 0
    if number and not is_version(version):
        raise UsageError(f"{label}: expected a version from 1, got {number!r}")
    return label, version or None


def _look(models: Path, name: str) -> tuple[list[int], Versions]:
    """A model's versions, and what its `versions.toml` says."""
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
