"""The versions of one model: which serve, which are loaded, which leave. Pure; `repository` does what it says.

    wanted ──> LOADING ──> READY ──> UNLOADING ──> gone, or UNAVAILABLE: unloaded
                  │          ^ │
                  v          │ v  newer files of a version that serves: it stays READY
            UNAVAILABLE      └─┘  until they are proved, and for good if they are not

Rules, each a property of the tests:

- What serves goes on serving until what takes its place is READY. A load that fails changes nothing but the reason.
- Who answers a request that names no version is READY, or nobody.
- A label moves when the version it moves to is READY, and not before.
- Files that failed are not tried again until they change, or somebody asks for it.
- A version that left the models that serve is handed out once, to be let go.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, TypeVar

from weir.bundle.versions import STABLE

M = TypeVar("M")

UNLOADED = "unloaded"
"""The reason of a version that was taken out of service by call."""


class State(Enum):
    """Where a version is in its life, in the protocol's words."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Version(Generic[M]):
    """One version that is known.

    Attributes:
        since_s: when it came into this state.
        reason: why it is not ready, or why its newer files were not taken.
        files: that it was last loaded from, or tried with; equal where nothing changed.
        model: what answers; only where it is READY.
    """

    state: State
    since_s: float
    files: Hashable
    reason: str = ""
    model: M | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to serve.

    Attributes:
        versions: by number, the files there are of each.
        labels: the version of each.
    """

    versions: Mapping[int, Hashable] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model(Generic[M]):
    """The versions of one model.

    Attributes:
        versions: by number.
        labels: the version that answers to each, or will.
        answering: the version that answers where none is named.
    """

    versions: Mapping[int, Version[M]] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    answering: int | None = None

    def is_ready(self, number: int | None) -> bool:
        """Whether a version answers."""
        version = None if number is None else self.versions.get(number)
        return version is not None and version.state is State.READY


def to_load(
    model: Model[M], wanted: Wanted, *, retry: bool = False, again: bool = False
) -> list[int]:
    """The versions to be loaded, in this order: first the one that shall answer, then the highest.

    Args:
        model: as it is.
        wanted: as it should be.
        retry: also files that failed before.
        again: also files that serve.
    """
    numbers = [
        number
        for number, files in wanted.versions.items()
        if (again if model.is_ready(number) else retry)
        or number not in model.versions
        or model.versions[number].state in (State.LOADING, State.UNLOADING)
        or model.versions[number].files != files
    ]
    stable = wanted.labels.get(STABLE)
    return sorted(numbers, key=lambda number: (number != stable, -number))


def loading(model: Model[M], number: int, files: Hashable, now: float) -> Model[M]:
    """A version is about to be loaded; one that serves goes on."""
    if model.is_ready(number):
        return model
    return _with(model, number, Version(State.LOADING, now, files))


def loaded(
    model: Model[M], number: int, files: Hashable, served: M, now: float
) -> tuple[Model[M], M | None]:
    """A version proved itself and serves; with what served under its number, to be let go."""
    before = model.versions.get(number)
    after = _with(model, number, Version(State.READY, now, files, model=served))
    return after, before.model if before else None


def failed(model: Model[M], number: int, files: Hashable, reason: str, now: float) -> Model[M]:
    """A version could not be loaded; what served under its number goes on."""
    if model.is_ready(number):
        version = replace(model.versions[number], files=files, reason=reason)
    else:
        version = Version(State.UNAVAILABLE, now, files, reason)
    return _with(model, number, version)


def settled(model: Model[M], wanted: Wanted, now: float) -> tuple[Model[M], dict[int, M]]:
    """After the loading: labels move, another version answers, and who is not wanted leaves.

    Returns:
        The model, and by number what leaves: no request finds it any longer.
    """
    labels = {name: _labelled(model, name, number) for name, number in wanted.labels.items()}
    answering = _answering(model, wanted, labels) if wanted.versions else None
    staying = {*wanted.versions, *labels.values(), answering} if wanted.versions else set()
    versions: dict[int, Version[M]] = {}
    leaving: dict[int, M] = {}
    for number, version in model.versions.items():
        if number in staying or version.state is State.UNLOADING:
            versions[number] = version
        elif version.model is not None:
            leaving[number] = version.model
            versions[number] = replace(version, state=State.UNLOADING, since_s=now, model=None)
    return Model(versions, labels, answering), leaving


def left(model: Model[M], number: int, now: float, *, unloaded: bool) -> Model[M]:
    """A version that was leaving has let go of everything.

    Args:
        model: as it is.
        number: of the version; one that came back meanwhile is not touched.
        now: the time.
        unloaded: whether to remember it as unloaded, rather than to forget it.
    """
    version = model.versions.get(number)
    if version is None or version.state is not State.UNLOADING:
        return model
    if unloaded:
        return _with(model, number, Version(State.UNAVAILABLE, now, version.files, UNLOADED))
    kept = {key: value for key, value in model.versions.items() if key != number}
    return replace(model, versions=kept)


def _labelled(model: Model[M], label: str, number: int) -> int:
    """Where a label is: at its new version once that serves, where it was until then."""
    before = model.labels.get(label)
    if model.is_ready(number) or before is None or not model.is_ready(before):
        return number
    return before


def _answering(model: Model[M], wanted: Wanted, labels: Mapping[str, int]) -> int | None:
    """Who shall answer, if it serves; if not, who did until now; and where that is nobody, the highest that may."""
    shall = labels.get(STABLE, max(wanted.versions))
    if model.is_ready(shall):
        return shall
    if model.is_ready(model.answering) or STABLE in labels:
        return model.answering if model.is_ready(model.answering) else None
    return max((number for number in wanted.versions if model.is_ready(number)), default=None)


def _with(model: Model[M], number: int, version: Version[M]) -> Model[M]:
    return replace(model, versions={**model.versions, number: version})
