"""State machine of one model's versions. Pure: `model_manager` does what it decides.

    desired ──> LOADING ──> READY ──> UNLOADING ──> removed, or UNAVAILABLE: unloaded
                   │          ^ │
                   v          │ v  newer files of a version that serves: it stays READY
             UNAVAILABLE      └─┘  until they are verified, and for good if they fail

Rules, each a property of the tests:

- A version serves until the version that replaces it is READY. A failed load changes only the
  reason.
- The default version, which answers a request without a version, is READY; or there is none.
- A label moves when the version it moves to is READY, and not before.
- Files that failed are loaded again only if they change, or if a call asks for it.
- A version that leaves the served versions is handed out once, to be unloaded.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, TypeVar

from weir.bundle.versions import STABLE

M = TypeVar("M")

UNLOADED = "unloaded"
"""The reason of a version that a call unloaded."""


class State(Enum):
    """State of a version, in the protocol's words."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class VersionStatus(Generic[M]):
    """Status of one version.

    Attributes:
        since_s: when it entered this state.
        reason: why it is not ready, or why its newer files were refused.
        files: of its last load; equal if nothing changed.
        model: only if it is READY.
    """

    state: State
    since_s: float
    files: Hashable
    reason: str = ""
    model: M | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """Desired state of one model."""

    versions: Mapping[int, Hashable] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelStatus(Generic[M]):
    """Status of one model.

    Attributes:
        labels: the version of each; it may not be ready yet.
        default: the version that answers a request without a version.
    """

    versions: Mapping[int, VersionStatus[M]] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    default: int | None = None

    def is_ready(self, number: int | None) -> bool:
        """Whether a version serves."""
        version = None if number is None else self.versions.get(number)
        return version is not None and version.state is State.READY


def to_load(
    model: ModelStatus[M], desired: Desired, *, retry: bool = False, again: bool = False
) -> list[int]:
    """The versions to load, in this order: the stable one, then from the highest.

    Args:
        retry: also files that failed before.
        again: also files that serve.
    """
    numbers = [
        number
        for number, files in desired.versions.items()
        if (again if model.is_ready(number) else retry)
        or number not in model.versions
        or model.versions[number].state in (State.LOADING, State.UNLOADING)
        or model.versions[number].files != files
    ]
    stable = desired.labels.get(STABLE)
    return sorted(numbers, key=lambda number: (number != stable, -number))


def mark_loading(model: ModelStatus[M], number: int, files: Hashable, now: float) -> ModelStatus[M]:
    """The status before a version is loaded; a version that serves stays READY."""
    if model.is_ready(number):
        return model
    return _with(model, number, VersionStatus(State.LOADING, now, files))


def mark_ready(
    model: ModelStatus[M], number: int, files: Hashable, served: M, now: float
) -> tuple[ModelStatus[M], M | None]:
    """The status after a version was verified, and the model that it replaces."""
    before = model.versions.get(number)
    after = _with(model, number, VersionStatus(State.READY, now, files, model=served))
    return after, before.model if before else None


def mark_failed(
    model: ModelStatus[M], number: int, files: Hashable, reason: str, now: float
) -> ModelStatus[M]:
    """The status after a load failed; the model that serves under this number goes on."""
    if model.is_ready(number):
        version = replace(model.versions[number], files=files, reason=reason)
    else:
        version = VersionStatus(State.UNAVAILABLE, now, files, reason)
    return _with(model, number, version)


def settle(
    model: ModelStatus[M], desired: Desired, now: float
) -> tuple[ModelStatus[M], dict[int, M]]:
    """Move labels and the default version to what is ready, and release versions not desired.

    Returns:
        The status, and by number the models to unload: no request finds them any longer.
    """
    labels = {name: _labelled(model, name, number) for name, number in desired.labels.items()}
    default = _default(model, desired, labels) if desired.versions else None
    staying = {*desired.versions, *labels.values(), default} if desired.versions else set()
    versions: dict[int, VersionStatus[M]] = {}
    leaving: dict[int, M] = {}
    for number, version in model.versions.items():
        if number in staying or version.state is State.UNLOADING:
            versions[number] = version
        elif version.model is not None:
            leaving[number] = version.model
            versions[number] = replace(version, state=State.UNLOADING, since_s=now, model=None)
    return ModelStatus(versions, labels, default), leaving


def mark_unloaded(model: ModelStatus[M], number: int, now: float, *, keep: bool) -> ModelStatus[M]:
    """The status after a version was drained: it is removed, or UNAVAILABLE with `keep`.

    A version that is loaded again meanwhile stays.
    """
    version = model.versions.get(number)
    if version is None or version.state is not State.UNLOADING:
        return model
    if keep:
        return _with(model, number, VersionStatus(State.UNAVAILABLE, now, version.files, UNLOADED))
    kept = {key: value for key, value in model.versions.items() if key != number}
    return replace(model, versions=kept)


def _labelled(model: ModelStatus[M], label: str, number: int) -> int:
    """The version of a label: the new one if it is ready, else the old one if that is."""
    before = model.labels.get(label)
    if model.is_ready(number) or before is None or not model.is_ready(before):
        return number
    return before


def _default(model: ModelStatus[M], desired: Desired, labels: Mapping[str, int]) -> int | None:
    """The stable or highest version if ready, else the current default, else the highest ready one.

    If there is a stable version, the highest one does not replace it.
    """
    preferred = labels.get(STABLE, max(desired.versions))
    if model.is_ready(preferred):
        return preferred
    if model.is_ready(model.default):
        return model.default
    if STABLE in labels:
        return None
    return max((number for number in desired.versions if model.is_ready(number)), default=None)


def _with(model: ModelStatus[M], number: int, version: VersionStatus[M]) -> ModelStatus[M]:
    return replace(model, versions={**model.versions, number: version})
