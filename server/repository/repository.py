"""The models of one directory: found at the start, and followed.

Thread: `weir-loader`, the only one that loads and unloads. Everybody else reads a catalogue, which is replaced as a
whole by one assignment: a lookup takes no lock.

Three ways to change what is served:

    none       what is there at the start, and that is all
    poll       the directory is looked at again and again
    explicit   by call (`changes`)
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from weir.server.repository.heap import give_back
from weir.server.repository.load_sandbox import Trial
from weir.server.repository.loader import Loader
from weir.server.repository.model_manager import Shell, Upkeep
from weir.server.repository.registry import Catalogue, Entry, Offer
from weir.server.repository.scan import Found, scan
from weir.server.repository.version_state import UNLOADED, State
from weir.server.scheduling.request import Model
from weir.server.telemetry.model_metrics import ModelGauges

logger = logging.getLogger(__name__)


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
        self.root = root
        self._trial = trial
        self._changed = changed
        self._poll_interval_s = poll_interval_s
        self.catalogue = Catalogue()
        self._shell = Shell(root, loader, trial, self._publish, self.call)
        self._upkeeps: dict[str, Upkeep] = {}
        self._found: dict[str, Found] = {}
        self._remarks: set[str] = set()
        # None ends the thread.
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._is_loaded = threading.Event()
        self.stopping = threading.Event()
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

    def get(self, name: str, version: str) -> Model:
        """The model that answers a request; see `Catalogue.get`."""
        return self.catalogue.get(name, version)

    def upkeeps(self) -> list[Upkeep]:
        """The models by their directories' names; only to be asked."""
        # One look: the loading thread may replace them meanwhile.
        upkeeps = self._upkeeps
        return [upkeeps[name] for name in sorted(upkeeps) if not upkeeps[name].is_gone]

    def gauges(self) -> list[ModelGauges]:
        """What each model holds now, for a scrape."""
        # What was unloaded on purpose is no model to look at.
        return [_gauges(entry) for entry in self.entries() if entry.reason != UNLOADED]

    def close(self, timeout_s: float) -> bool:
        """Let every model finish what it holds; True if all did in time."""
        self.stopping.set()
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

    def call(self, job: Callable[[], None]) -> None:
        """Have the loading thread do something, after what it is asked for already."""
        self._jobs.put(job)

    def find(self, name: str) -> Upkeep | None:
        """The model of a directory; None where there is none, or none any longer."""
        upkeep = self._upkeeps.get(name)
        return None if upkeep is None or upkeep.is_gone else upkeep

    def found_or_new(self, name: str) -> Upkeep:
        """Likewise; the loading thread alone may ask for a new one."""
        if name not in self._upkeeps:
            self._upkeeps = {**self._upkeeps, name: Upkeep(name, self._shell)}
        # Also of one that was gone, and comes again.
        self._shell.loader.metrics.model_known(name)
        return self._upkeeps[name]

    def _run(self) -> None:
        self._load_all()
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # our bug: the next change still counts on this thread
                logger.exception("change lost")
            is_poll = job == self._poll
            # It may be the last that knows a version that left.
            del job
            if not is_poll:
                give_back()

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._jobs.get(timeout=self._poll_interval_s)
        except queue.Empty:
            return self._poll

    def _load_all(self) -> None:
        found = {name: one for name, one in (self._scan() or {}).items() if one.versions}
        self._each(found, lambda name, one: self.found_or_new(name).announce(one))
        self._each(found, lambda name, one: self.found_or_new(name).bring(one, is_first=True))
        if self.stopping.is_set():
            return
        self._is_loaded.set()
        self._changed(None)
        offers = self.catalogue.offers.values()
        ready = sum(offer.default.state is State.READY for offer in offers)
        logger.info("models loaded ready=%d failed=%d", ready, len(offers) - ready)

    def _poll(self) -> None:
        before, now = self._found, self._scan()
        if now is None:
            return
        for name in self._upkeeps.keys() - now.keys() - before.keys():
            upkeep = self._upkeeps[name]
            if not upkeep.is_leaving:
                logger.info("model vanished model=%s", name)
                upkeep.unload(forget=True)
            elif not upkeep.leaving:
                self._upkeeps = {key: each for key, each in self._upkeeps.items() if key != name}
        self._each(now, lambda name, one: self.found_or_new(name).follow(one, before.get(name)))

    def _each(self, found: dict[str, Found], bring: Callable[[str, Found], object]) -> None:
        """Do something for each model, until the server stops."""
        for name, one in found.items():
            if self.stopping.is_set():
                return
            try:
                bring(name, one)
            except Exception:  # our bug: the other models still count on this thread
                logger.exception("model lost model=%s", name)

    def _scan(self) -> dict[str, Found] | None:
        """What is on disk; None where it cannot be told, so that nothing changes."""
        try:
            found, remarks = scan(self.root)
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
        """Replace the catalogue, forget who left it, and tell of every name that is answered otherwise than before."""
        before, offers = self.catalogue.offers, {}
        known = _versions(self.catalogue)
        # Of two that want one name, the first has it: a pair, whose name is how the other begins.
        for name in sorted(self._upkeeps, reverse=True):
            offers.update(self._upkeeps[name].offers())
        now = Catalogue(offers)
        for name, version in _versions(now) - known:
            self._shell.loader.metrics.model(name, version)
        self.catalogue = now
        for name, version in known - _versions(now):
            self._shell.loader.metrics.forget(name, version)
        for name, offer in offers.items():
            if name not in before or _answer(before[name]) != _answer(offer):
                self._changed(offer.default)
        for name in before.keys() - offers.keys():
            self._shell.loader.metrics.forget_loads(name)
            self._changed(replace(before[name].default, state=State.UNAVAILABLE, model=None))


def _versions(catalogue: Catalogue) -> set[tuple[str, str]]:
    return {(entry.name, entry.version) for entry in catalogue.entries()}


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
        queue_limit_rows=(entry.model.settings.max_queue_rows or 1) if entry.model else None,
    )
