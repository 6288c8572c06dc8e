"""Registry: the served models by name, an immutable snapshot. A lookup takes no lock."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from weir.bundle.versions import STABLE, is_label
from weir.server.errors import InvalidRequest, ModelNotReady, UnknownModel
from weir.server.repository.scan import VersionFiles
from weir.server.repository.version_state import ModelStatus, State, VersionStatus
from weir.server.scheduling.request import Model

# As many digits as fit the wire's signed 64-bit integers, and 0, which no version has.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
# A status travels in headers, which are small.
_MAX_REASON = 500

LoadedVersion = Mapping[str, Model]
"""The models of one loaded version, by the names in requests: one model, or three of a pair."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of a model, under a name in requests.

    Attributes:
        since_s: when it entered its state, in seconds since 1970.
        reason: why it is not ready, or why its newer files were refused.
    """

    name: str
    version: str
    state: State
    reason: str = ""
    model: Model | None = None
    since_s: float = 0.0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """The versions of a model, under a name in requests.

    Attributes:
        directory: the model's, which a pair's graphs share.
        on_disk: the numbers of the versions in the directory.
        versions: by number, the highest first.
        default: answers a request without a version; if none is ready, the entry that says why.
    """

    directory: str
    on_disk: tuple[int, ...]
    versions: Mapping[str, Entry]
    default: Entry
    labelled: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Registry:
    """All models, by the names in requests."""

    models: Mapping[str, ModelVersions] = field(default_factory=dict)

    def entries(self) -> list[Entry]:
        """Every version, by name, the highest first."""
        return [
            entry for name in sorted(self.models) for entry in self.models[name].versions.values()
        ]

    def entry(self, name: str, version: str) -> Entry:
        """A version of a model.

        Args:
            name: only ever looked up, never part of a path.
            version: a number, a label, or empty for the default version.

        Raises:
            InvalidRequest: there is no name, or the version is neither number nor label.
            UnknownModel: there is no such model, version or label.
        """
        model = self.models.get(name)
        if version and not _NUMBER.fullmatch(version) and not is_label(version):
            raise InvalidRequest(
                f"model version: expected a number or a label, got {version[:64]!r}"
            )
        if not name:
            raise InvalidRequest("model name: expected one, got none")
        if model is None:
            raise UnknownModel(f"unknown model {name[:128]!r}")
        if not version:
            return model.default
        entry = model.versions.get(version) or model.labelled.get(version)
        if entry is None:
            known = ", ".join((*model.versions, *sorted(model.labelled)))
            what = "version" if version[0].isdigit() else "label"
            raise UnknownModel(f"model {name!r} has no {what} {version}; it has {known}")
        return entry

    def get(self, name: str, version: str) -> Model:
        """The model that serves a version; see `entry`.

        Raises:
            ModelNotReady: the version is known and does not serve.
        """
        entry = self.entry(name, version)
        if entry.model is None:
            reason = f": {entry.reason[:_MAX_REASON]}" if entry.reason else ""
            raise ModelNotReady(
                f"model {name!r} version {entry.version} is {entry.state.value.lower()}{reason}",
                (entry.name, entry.version),
            )
        return entry.model

    def ready_versions(self, name: str) -> list[str]:
        """The numbers of a model's versions that serve, the highest first."""
        model = self.models.get(name)
        entries = model.versions.values() if model else ()
        return [entry.version for entry in entries if entry.model is not None]


def entries_of(
    name: str, on_disk: tuple[int, ...], status: ModelStatus[LoadedVersion], problem: str
) -> dict[str, ModelVersions]:
    """The registry's part for one model directory, by the names in requests.

    Args:
        on_disk: the numbers of the versions in it.
        problem: the reason shown for a version that serves and has none of its own.
    """
    labels: dict[int, list[str]] = {}
    for label, number in sorted(status.labels.items()):
        labels.setdefault(number, []).append(label)
    entries: dict[str, dict[int, Entry]] = {}
    for number in sorted(status.versions, reverse=True):
        version = status.versions[number]
        for served_name in _served_names(name, version):
            entries.setdefault(served_name, {})[number] = Entry(
                name=served_name,
                version=str(number),
                state=version.state,
                reason=version.reason or (problem if version.model else ""),
                model=version.model[served_name] if version.model else None,
                since_s=version.since_s,
                labels=tuple(labels.get(number, ())),
            )
    return {
        served_name: ModelVersions(
            directory=name,
            on_disk=on_disk,
            versions={str(number): entry for number, entry in by_number.items()},
            default=_default(status, by_number),
            labelled={
                label: by_number[number]
                for label, number in status.labels.items()
                if number in by_number
            },
        )
        for served_name, by_number in entries.items()
    }


def _served_names(name: str, version: VersionStatus[LoadedVersion]) -> tuple[str, ...]:
    if version.model is not None:
        return tuple(version.model)
    return version.files.served if isinstance(version.files, VersionFiles) else (name,)


def _default(status: ModelStatus[LoadedVersion], by_number: Mapping[int, Entry]) -> Entry:
    # If no version serves, the preferred one says why.
    candidates = (status.default, status.labels.get(STABLE), max(by_number))
    number = next(number for number in candidates if number is not None and number in by_number)
    return by_number[number]
