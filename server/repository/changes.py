"""What is served, changed on demand: a model at a time, and of one model one change at a time.

Begun on any thread, done by `weir-loader`.
"""

import threading
from collections.abc import Callable

from weir.bundle.errors import InvalidName
from weir.bundle.repository import check_name
from weir.server.errors import (
    Draining,
    InvalidRequest,
    ModelNotLoaded,
    ModelNotReady,
    Overloaded,
    UnknownModel,
)
from weir.server.repository.model_manager import Upkeep
from weir.server.repository.repository import Repository
from weir.server.repository.scan import Found, scan_model

MOST_WAITING = 256
"""Changes that may be under way; they are done one after the other."""

Done = Callable[[Exception | None], None]
"""Told once how a change ended: with nothing, or with what went wrong."""


class Changes:
    """Loads and unloads models, and moves their labels.

    Every method raises RequestError for what cannot be begun, and tells `done` of everything else.

    Args:
        repository: the models.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def load(self, name: str, done: Done, *, again: bool) -> None:
        """Bring what is on disk of a model into service.

        Args:
            name: of its directory.
            done: called when it serves, or cannot.
            again: also what serves already from the same files.
        """
        try:
            # Before anything is made a path of it.
            check_name(name)
        except InvalidName:
            raise UnknownModel(f"unknown model {name[:128]!r}") from None

        def work() -> None:
            found = self._look(name)
            reason = self._repository.found_or_new(name).bring(found, retry=True, again=again)
            if reason:
                raise ModelNotLoaded(f"model {name!r}: {reason}")

        self._begin(name, work, done)

    def unload(self, name: str, done: Done) -> None:
        """Take a model out of service; what it has been asked already is answered."""

        def work() -> None:
            self._known(name).unload(forget=False)

        self._known(name)
        self._begin(name, work, done)

    def label(self, name: str, label: str, number: int | None, done: Done) -> None:
        """Move a label of a model, for as long as the server runs, or (None) end that.

        Its version is loaded if need be, but not the model where somebody unloaded it.
        """

        def work() -> None:
            upkeep = self._known(name)
            if upkeep.is_unloaded:
                raise ModelNotReady(f"model {name!r} is unloaded: load it first")
            reason = upkeep.label(self._look(name), label, number)
            if reason:
                version = f" version {number}" if number else ""
                raise ModelNotLoaded(f"label {label!r} stays: model {name!r}{version}: {reason}")

        self._known(name)
        self._begin(name, work, done)

    def _begin(self, name: str, work: Callable[[], None], done: Done) -> None:
        with self._lock:
            if self._repository.stopping.is_set():
                raise Draining("the server is stopping")
            if name in self._busy:
                raise ModelNotReady(f"model {name!r} is being changed already: try again later")
            # One for each name, and a caller may think up any number of names.
            if len(self._busy) >= MOST_WAITING:
                raise Overloaded(
                    f"{len(self._busy)} changes of models wait, the limit is {MOST_WAITING}"
                )
            self._busy.add(name)

        def job() -> None:
            failure: Exception | None = None
            try:
                if not self._repository.stopping.is_set():
                    work()
            except Exception as error:  # noqa: BLE001 - whoever asked is told, of a bug too
                failure = error
            if self._repository.stopping.is_set():
                # What it was in the middle of was broken off.
                failure = Draining("the server is stopping")
            with self._lock:
                is_ours = name in self._busy
                self._busy.discard(name)
            if is_ours:
                done(failure)

        self._repository.call(job)
        if self._repository.stopping.is_set():
            # The loading thread may have ended before it came to this: then it is for us to say so.
            job()

    def _known(self, name: str) -> Upkeep:
        upkeep = self._repository.find(name)
        if upkeep is None:
            self._refuse_part(name)
            raise UnknownModel(f"unknown model {name[:128]!r}")
        return upkeep

    def _look(self, name: str) -> Found:
        """A model's directory, as it is now."""
        self._refuse_part(name)
        found = scan_model(self._repository.root / name)
        if found is not None and found.versions:
            return found
        self._known(name)
        raise ModelNotLoaded(f"model {name!r} is no longer in the repository; what serves goes on")

    def _refuse_part(self, name: str) -> None:
        if name in self._repository.catalogue.offers and self._repository.find(name) is None:
            raise InvalidRequest(f"model {name!r} is a graph of a pair: name the pair")
