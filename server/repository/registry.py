"""What is served under which name: a snapshot that is replaced as a whole, so that looking up takes no lock."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from weir.bundle.versions import STABLE, is_label
from weir.server.errors import InvalidRequest, ModelNotReady, UnknownModel
from weir.server.repository import version_state
from weir.server.repository.scan import Files
from weir.server.repository.version_state import State
from weir.server.scheduling.request import Model

# As many digits as fit the wire's signed 64-bit integers, and 0, which no version has.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
# A status travels in headers, which are small.
_MOST_REASON = 500

Models = Mapping[str, Model]
"""What serves a version, by the name that is asked for: one, of a pair three."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A version that is known, under a name it is asked by.

    Attributes:
        since_s: when it came into its state, in seconds since 1970.
        reason: why it is not ready, or why its newer files were not taken.
        labels: that it answers to.
    """

    name: str
    version: str
    state: State
    reason: str = ""
    model: Model | None = None
    since_s: float = 0.0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """What one name can be asked for.

    Attributes:
        versions: by number, the highest first.
        default: what a request gets that names no version; where nothing answers, what says why.
        labelled: by label.
    """

    versions: Mapping[str, Entry]
    default: Entry
    labelled: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every name that is known."""

    offers: Mapping[str, Offer] = field(default_factory=dict)

    def entries(self) -> list[Entry]:
        """Every known version, by name, the highest first."""
        return [
            entry for name in sorted(self.offers) for entry in self.offers[name].versions.values()
        ]

    def entry(self, name: str, version: str) -> Entry:
        """What is known of a model.

        Args:
            name: of the model; only ever looked up, never made a path of.
            version: a number, a label, or nothing for the one that answers.

        Raises:
            InvalidRequest: there is no name, or the version is neither number nor label.
            UnknownModel: there is no such model, version or label.
        """
        offer = self.offers.get(name)
        if version and not _NUMBER.fullmatch(version) and not is_label(version):
            raise InvalidRequest(
                f"model version: expected a number or a label, got {version[:64]!r}"
            )
        if not name:
            raise InvalidRequest("model name: expected one, got none")
        if offer is None:
            raise UnknownModel(f"unknown model {name[:128]!r}")
        if not version:
            return offer.default
        entry = offer.versions.get(version) or offer.labelled.get(version)
        if entry is None:
            known = ", ".join((*offer.versions, *sorted(offer.labelled)))
            what = "version" if version[0].isdigit() else "label"
            raise UnknownModel(f"model {name!r} has no {what} {version}; it has {known}")
        return entry

    def get(self, name: str, version: str) -> Model:
        """The model that answers a request; see `entry`.

        Raises:
            ModelNotReady: it is known and cannot answer now.
        """
        entry = self.entry(name, version)
        if entry.model is None:
            reason = f": {entry.reason[:_MOST_REASON]}" if entry.reason else ""
            raise ModelNotReady(
                f"model {name!r} version {entry.version} is {entry.state.value.lower()}{reason}",
                (entry.name, entry.version),
            )
        return entry.model

    def ready_versions(self, name: str) -> list[str]:
        """The versions of a model that answer, the highest first."""
        offer = self.offers.get(name)
        entries = offer.versions.values() if offer else ()
        return [entry.version for entry in entries if entry.model is not None]


def offers_of(name: str, model: version_state.Model[Models], problem: str) -> dict[str, Offer]:
    """By name, what may be asked of one model.

    Args:
        name: of its directory.
        model: its versions.
        problem: told beside what answers, where that has no reason of its own.
    """
    labels: dict[int, list[str]] = {}
    for label, number in sorted(model.labels.items()):
        labels.setdefault(number, []).append(label)
    entries: dict[str, dict[int, Entry]] = {}
    for number in sorted(model.versions, reverse=True):
        version = model.versions[number]
        for asked in _names(name, version):
            entries.setdefault(asked, {})[number] = Entry(
                name=asked,
                version=str(number),
                state=version.state,
                reason=version.reason or (problem if version.model else ""),
                model=version.model[asked] if version.model else None,
                since_s=version.since_s,
                labels=tuple(labels.get(number, ())),
            )
    return {asked: _offer(model, by_number) for asked, by_number in entries.items()}


def _names(name: str, version: version_state.Version[Models]) -> tuple[str, ...]:
    """What a version is asked by."""
    if version.model is not None:
        return tuple(version.model)
    return version.files.served if isinstance(version.files, Files) else (name,)


def _offer(model: version_state.Model[Models], by_number: Mapping[int, Entry]) -> Offer:
    # Where nothing answers, the one that should says why.
    candidates = (model.answering, model.labels.get(STABLE), max(by_number))
    default = next(number for number in candidates if number is not None and number in by_number)
    return Offer(
        versions={str(number): entry for number, entry in by_number.items()},
        default=by_number[default],
        labelled={
            label: by_number[number]
            for label, number in model.labels.items()
            if number in by_number
        },
    )
