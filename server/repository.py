"""The models of one directory: found, followed, and changed on demand.

Thread: `weir-loader`, the only one that loads and unloads. Everybody else reads a catalogue, which is replaced as a
whole by one assignment: a lookup takes no lock.

Three ways to change what is served:

    none       what is there at the start, and that is all
    poll       the directory is looked at again and again
    explicit   by call
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bundle.errors import InvalidName
from bundle.repository import check_name
from server.catalogue import Catalogue, Entry, Offer
from server.errors import (
    Draining,
    InvalidRequest,
    LoadFailed,
    ModelNotReady,
    RequestError,
    UnknownModel,
)
from server.generation.served import ServedPair
from server.lifecycle import State
from server.metrics import ModelGauges
from server.model import Loader, ServedModel
from server.scan import Found, scan, scan_model
from server.trial import Trial
from server.upkeep import Shell, Upkeep

logger = logging.getLogger(__name__)

Done = Callable[[Exception | None], None]
"""Told once how a change ended: with nothing, or with what went wrong."""


class Repository:
    """Which models exist and which version of each answers.

    A pair of graphs is three names, `NAME`, `NAME.encoder` and `NAME.decoder`, which change together.

    Args:
        root: holds `<name>/<version>/`.
        loader: loads one version.
        trial: likewise, for what is loaded beside others that serve.
        changed: told of every name whose answer changes, and (None) when the first loading is over.
        poll_interval_s: how often to look at the directory again; None: never.
    """

    def __init__(
        self,
        root: Path,
        loader: Loader,
        trial: Trial,
        changed: Callable[[Entry | None], None],
        *,
        poll_interval_s: float | None = None,
    ) -> None:
        self._root = root
        self._trial = trial
        self._changed = changed
        self._poll_interval_s = poll_interval_s
        self.catalogue = Catalogue()
        self._shell = Shell(root, loader, trial, self._publish, self._call)
        self._upkeeps: dict[str, Upkeep] = {}
        self._found: dict[str, Found] = {}
        self._remarks: set[str] = set()
        # None ends the thread.
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy: set[str] = set()
        self._busy_lock = threading.Lock()
        self._is_loaded = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="weir-loader", daemon=True)

    def start(self) -> None:
        """Begin to load what is in the directory, in the background."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether the first loading is over, and left something that answers if there was any."""
        offers = self.catalogue.offers.values()
        return self._is_loaded.is_set() and (
            not offers or any(offer.default.state is State.READY for offer in offers)
        )

    def entries(self) -> list[Entry]:
        """Every known version, by name, the highest first."""
        return self.catalogue.entries()

    def entry(self, name: str, version: str) -> Entry:
        """What is known of a model; see `Catalogue.entry`."""
        return self.catalogue.entry(name, version)

    def get(self, name: str, version: str) -> ServedModel | ServedPair:
        """The model that answers a request; see `Catalogue.get`."""
        return self.catalogue.get(name, version)

    def upkeeps(self) -> list[Upkeep]:
        """The models by their directories' names; only to be asked."""
        upkeeps = [self._upkeeps[name] for name in sorted(self._upkeeps)]
        return [upkeep for upkeep in upkeeps if not upkeep.is_gone]

    def gauges(self) -> list[ModelGauges]:
        """What each model holds now, for a scrape."""
        return [_gauges(entry) for entry in self.entries()]

    def load(self, name: str, done: Done, *, again: bool) -> None:
        """Bring what is on disk of a model into service.

        Args:
            name: of its directory.
            done: called when it serves, or cannot.
            again: also what serves already from the same files.

        Raises:
            RequestError: it cannot be begun.
        """

        def work() -> RequestError | None:
            found = self._look(name)
            reason = self._upkeep(name).bring(found, retry=True, again=again)
            return LoadFailed(f"model {name!r}: {reason}") if reason else None

        self._begin(name, work, done)

    def unload(self, name: str, done: Done) -> None:
        """Take a model out of service; likewise."""

        def work() -> RequestError | None:
            self._known(name).unload(forget=False)
            return None

        self._known(name)
        self._begin(name, work, done)

    def label(self, name: str, label: str, number: int | None, done: Done) -> None:
        """Move a label, or (None) take it away; likewise."""

        def work() -> RequestError | None:
            reason = self._known(name).label(self._look(name), label, number)
            if not reason:
                return None
            return LoadFailed(f"label {label!r} stays: model {name!r} version {number}: {reason}")

        self._known(name)
        self._begin(name, work, done)

    def close(self, timeout_s: float) -> bool:
        """Let every model finish what it holds; True if all did in time."""
        self._stopping = True
        self._trial.stop()
        self._jobs.put(None)
        upkeeps = list(self._upkeeps.values())
        versions = [each for upkeep in upkeeps for each in (*upkeep.serving, *upkeep.leaving)]
        schedulers = [model.scheduler for models in versions for model in models.values()]
        for scheduler in schedulers:
            scheduler.close()
        end_s = time.monotonic() + timeout_s
        ended = [scheduler.join(max(0.0, end_s - time.monotonic())) for scheduler in schedulers]
        return all(ended)

    def _begin(self, name: str, work: Callable[[], RequestError | None], done: Done) -> None:
        """Have the loading thread do something with a model, unless it is at it already."""
        with self._busy_lock:
            if self._stopping:
                raise Draining("the server is stopping")
            if name in self._busy:
                raise ModelNotReady(f"model {name!r} is being changed already: try again later")
            self._busy.add(name)

        def job() -> None:
            result: Exception | None
            try:
                result = Draining("the server is stopping") if self._stopping else work()
            except Exception as error:  # noqa: BLE001 - whoever asked is told, of a bug too
                result = error
            with self._busy_lock:
                self._busy.discard(name)
            done(result)

        self._call(job)

    def _call(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def _known(self, name: str) -> Upkeep:
        upkeep = self._upkeeps.get(name)
        if upkeep is not None and not upkeep.is_gone:
            return upkeep
        self._refuse_part(name)
        raise UnknownModel(f"unknown model {name[:128]!r}")

    def _refuse_part(self, name: str) -> None:
        if name in self.catalogue.offers and name not in self._upkeeps:
            raise InvalidRequest(f"model {name!r} is a graph of a pair: name the pair")

    def _look(self, name: str) -> Found:
        """A model's directory, as it is now."""
        self._refuse_part(name)
        try:
            check_name(name)
        except InvalidName:
            raise UnknownModel(f"unknown model {name[:128]!r}") from None
        found = scan_model(self._root / name)
        if found is not None and found.versions:
            return found
        self._known(name)
        raise LoadFailed(f"model {name!r} is no longer in the repository; what serves goes on")

    def _upkeep(self, name: str) -> Upkeep:
        if name not in self._upkeeps:
            self._upkeeps = {**self._upkeeps, name: Upkeep(name, self._shell)}
        return self._upkeeps[name]

    def _run(self) -> None:
        self._load_all()
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # our bug: the next change still counts on this thread
                logger.exception("change lost")
            # It may be the last that knows a version that left.
            del job

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._jobs.get(timeout=self._poll_interval_s)
        except queue.Empty:
            return self._poll

    def _load_all(self) -> None:
        found = self._scan() or {}
        for name, one in found.items():
            self._upkeep(name).announce(one)
        for name, one in found.items():
            if self._stopping:
                return
            self._upkeep(name).bring(one, is_first=True)
        self._is_loaded.set()
        self._changed(None)
        offers = self.catalogue.offers.values()
        ready = sum(offer.default.state is State.READY for offer in offers)
        logger.info("models loaded ready=%d failed=%d", ready, len(offers) - ready)

    def _poll(self) -> None:
        before, now = self._found, self._scan()
        if now is None:
            return
        for name in [name for name in self._upkeeps if name not in now]:
            logger.info("model vanished model=%s", name)
            self._upkeeps[name].unload(forget=True)
        for name, found in now.items():
            if self._stopping:
                return
            counted = self._upkeep(name).steady(found, before.get(name))
            if counted.versions:
                self._upkeep(name).bring(counted)

    def _scan(self) -> dict[str, Found] | None:
        """What is on disk; None where it cannot be told, so that nothing changes."""
        try:
            found, remarks = scan(self._root)
        except OSError as error:
            found, remarks = None, [f"repository cannot be read reason={error.strerror}"]
        if found == {} and self._found:
            # A volume that came off looks like this.
            found, remarks = None, ["repository is empty, what serves goes on"]
        for remark in sorted(set(remarks) - self._remarks):
            logger.warning("%s", remark)
        self._remarks = set(remarks)
        if found is not None:
            self._found = found
        return found

    def _publish(self) -> None:
        """Replace the catalogue, and tell of every name that is answered otherwise than before."""
        before, offers = self.catalogue.offers, {}
        # Of two that want one name, the first has it: a pair, whose name is how the other begins.
        for name in sorted(self._upkeeps, reverse=True):
            offers.update(self._upkeeps[name].offers())
        self.catalogue = Catalogue(offers)
        for name, offer in offers.items():
            if name not in before or _answer(before[name]) != _answer(offer):
                self._changed(offer.default)
        for name in before.keys() - offers.keys():
            self._changed(replace(before[name].default, state=State.UNAVAILABLE, model=None))


def _answer(offer: Offer) -> tuple[str, State]:
    return offer.default.version, offer.default.state


def _gauges(entry: Entry) -> ModelGauges:
    load = entry.model.scheduler.load() if entry.model else None
    return ModelGauges(
        model=entry.name,
        version=entry.version,
        is_ready=entry.state is State.READY,
        waiting_requests=load.waiting_requests if load else 0,
        waiting_rows=load.waiting_rows if load else 0,
        running_requests=load.running_requests if load else 0,
    )
