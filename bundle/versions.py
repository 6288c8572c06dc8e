"""Versions file of a model, `<models>/<name>/versions.toml`: version policy and labels.

    policy = "all"                  # or { latest = 2 }, or { specific = [1, 3] }

    [labels]
    stable = 1
    canary = 2

Rules:

- The file and each of its parts are optional. Without a policy, the server takes the one of the
  model's own configuration, or serves the newest version.
- A labelled version is served under every policy.
- A label cannot be read as a version number.
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
from weir.bundle.repository_files import NO_LINKS, LinkRoots, read_file, real_directory

FILE_NAME = "versions.toml"
STABLE = "stable"
"""The label of the default version: it serves requests without a version."""

LABEL_FORM = "up to 64 letters, digits, '_', '-' or '.', a letter or '_' first"
"""The form of a label, for messages."""

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
# The largest version number that a directory may have.
_MAX_VERSION = 10**18 - 1
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Version policy: the number of `latest` versions, or `specific` ones; neither: all."""

    latest: int | None = None
    specific: tuple[int, ...] = ()


NEWEST = VersionPolicy(latest=1)
"""The default policy."""


@dataclass(frozen=True, slots=True)
class VersionsFile:
    """Contents of `versions.toml`; `policy` is None if it has none, `labels` is read-only."""

    policy: VersionPolicy | None = None
    labels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


def versions_to_serve(versions: VersionsFile, present: Collection[int]) -> list[int]:
    """The versions among `present` that are served, ascending."""
    ordered = sorted(present)
    policy = versions.policy or NEWEST
    if policy.latest is not None:
        chosen = set(ordered[-policy.latest :])
    else:
        chosen = set(policy.specific or ordered)
    chosen |= set(versions.labels.values())
    return [version for version in ordered if version in chosen]


def is_label(text: object) -> TypeGuard[str]:
    """Whether a value is a label of the form `LABEL_FORM`."""
    return isinstance(text, str) and _LABEL.fullmatch(text) is not None


def is_version(number: object) -> TypeGuard[int]:
    """Whether a value is a version number."""
    return type(number) is int and 1 <= number <= _MAX_VERSION


def parse(data: bytes) -> VersionsFile:
    """Parse the bytes of `versions.toml`; InvalidVersions if a key or value is invalid."""
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InvalidVersions(f"{FILE_NAME}: expected UTF-8, {error.reason}") from error
    # `tomllib` passes on the errors of numbers and nesting beyond Python's limits.
    except (ValueError, RecursionError) as error:
        raise InvalidVersions(f"{FILE_NAME}: expected TOML: {error}") from error
    if strays := sorted(set(table) - {"policy", "labels"}):
        raise InvalidVersions(f"{FILE_NAME}: expected policy and labels, got {short_repr(strays)}")
    policy = _policy(table["policy"]) if "policy" in table else None
    return VersionsFile(policy, MappingProxyType(_labels(table.get("labels", {}))))


def read(model_directory: Path, links: LinkRoots = NO_LINKS) -> VersionsFile:
    """Read a model's `versions.toml`; empty if it is absent.

    InvalidVersions as for `parse`; BrokenBundle if it is not a regular file, or cannot be read.
    """
    if links:
        model_directory = real_directory(model_directory, links)
    path = model_directory / FILE_NAME
    if not os.path.lexists(path):
        return VersionsFile()
    return parse(read_file(path, _MAX_FILE_BYTES, links))


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
