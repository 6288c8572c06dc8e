"""`<models>/<name>/versions.toml`: which versions of a model are served, and their labels.

    policy = "all"                  # or { latest = 2 }, or { specific = [1, 3] }

    [labels]
    stable = 1
    canary = 2

Rules:

- The file may be absent, and each of its parts too. Without a policy the reader decides: a server
  takes what the model's own configuration says, else the newest version.
- A labelled version is served whatever the policy says.
- A label is a name that no version can be mistaken for.
"""

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

from weir.bundle.errors import InvalidVersions
from weir.bundle.escaping import short_repr
from weir.bundle.reader import read_file

FILE_NAME = "versions.toml"
STABLE = "stable"
"""The label whose version answers a request that names none."""

LABEL_FORM = "up to 64 letters, digits, '_', '-' or '.', a letter or '_' first"
"""What a label is, for messages."""

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
# As many digits as a version's directory may have.
_MAX_VERSION = 10**18 - 1
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions are served: the `latest` so many, or some `specific` ones; neither: all."""

    latest: int | None = None
    specific: tuple[int, ...] = ()


NEWEST = VersionPolicy(latest=1)
"""What is served where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class VersionsFile:
    """What `versions.toml` says; `policy` is None where it says none. `labels` cannot be changed."""

    policy: VersionPolicy | None = None
    labels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


def versions_to_serve(versions: VersionsFile, present: Collection[int]) -> list[int]:
    """Which of the versions that are `present` are to be served, ascending."""
    ordered = sorted(present)
    policy = versions.policy or NEWEST
    if policy.latest is not None:
        chosen = set(ordered[-policy.latest :])
    else:
        chosen = set(policy.specific or ordered)
    chosen |= set(versions.labels.values())
    return [version for version in ordered if version in chosen]


def is_label(text: object) -> TypeGuard[str]:
    """Whether something can be a label, which is `LABEL_FORM`."""
    return isinstance(text, str) and _LABEL.fullmatch(text) is not None


def is_version(number: object) -> TypeGuard[int]:
    """Whether something can be the number of a version."""
    return type(number) is int and 1 <= number <= _MAX_VERSION


def parse(data: bytes) -> VersionsFile:
    """What the bytes of a `versions.toml` say.

    Raises:
        InvalidVersions: they are not TOML, or say something else: names key, what was expected, what came.
    """
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InvalidVersions(f"{FILE_NAME}: expected UTF-8, {error.reason}") from error
    # Beside its own error, `tomllib` lets through what a number or a depth beyond Python's limits raises.
    except (ValueError, RecursionError) as error:
        raise InvalidVersions(f"{FILE_NAME}: expected TOML: {error}") from error
    if strays := sorted(set(table) - {"policy", "labels"}):
        raise InvalidVersions(f"{FILE_NAME}: expected policy and labels, got {short_repr(strays)}")
    policy = _policy(table["policy"]) if "policy" in table else None
    return VersionsFile(policy, MappingProxyType(_labels(table.get("labels", {}))))


def read(model_directory: Path) -> VersionsFile:
    """What a model's `versions.toml` says; nothing where there is none.

    Raises:
        InvalidVersions: it says what cannot be.
        BrokenBundle: it is no regular file, or cannot be read.
    """
    path = model_directory / FILE_NAME
    if not os.path.lexists(path):
        return VersionsFile()
    return parse(read_file(path, _MAX_FILE_BYTES))


def _policy(value: object) -> VersionPolicy:
    match value:
        case "all":
            return VersionPolicy()
        case {"latest": latest, **rest} if not rest:
            if type(latest) is not int or latest < 1:
                raise _unexpected("policy.latest", "a number of versions from 1", latest)
            return VersionPolicy(latest=latest)
        case {"specific": specific, **rest} if not rest:
            return VersionPolicy(specific=_specific(specific))
    raise _unexpected("policy", '"all", { latest = N } or { specific = [N, ...] }', value)


def _specific(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise _unexpected("policy.specific", "a list of versions", value)
    for version in value:
        if not is_version(version):
            raise _unexpected("policy.specific", "versions from 1", version)
    return tuple(value)


def _labels(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise _unexpected("labels", "a table of versions by label", value)
    for label, version in value.items():
        if not is_label(label):
            raise _unexpected("labels", f"names of {LABEL_FORM}", label)
        if not is_version(version):
            raise _unexpected(f"labels.{label}", "a version from 1", version)
    return value


def _unexpected(key: str, expected: str, got: object) -> InvalidVersions:
    return InvalidVersions(f"{FILE_NAME}: {key}: expected {expected}, got {short_repr(got)}")
