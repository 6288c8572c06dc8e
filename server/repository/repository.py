"""Model repository: loads the models of one source, and follows it or takes changes by call.

Thread: `weir-loader`, the only one that loads and unloads. Other threads read the registry, which
one assignment replaces as a whole.

Model control has three modes:

    none       the models at the start, and no changes
    poll       the directory is scanned again and again
    explicit   changes by call: load, unload, set a label
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from weir.bundle.errors import InvalidName
from weir.bundle.reader import MODEL
from weir.bundle.repository import check_name
from weir.server.errors import (
    Draining,
    InvalidRequest,
    ModelNotLoaded,
    ModelNotReady,
    Overloaded,
    UnknownModel,
)
from weir.server.repository.load_sandbox import LoadSandbox
from weir.server.repository.loader import Loader
from weir.server.repository.model_manager import ModelManager
from weir.server.repository.model_source import ModelSource
from weir.server.repository.registry import Entry, ModelVersions, Registry
from weir.server.repository.scan import ModelDirectory
from weir.server.repository.version_state import UNLOADED, State
from weir.server.runtime import heap
from weir.server.scheduling.request import Model
from weir.server.telemetry.model_stats import ModelGauges
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

MOST_WAITING = 256
"""Changes by call that may wait; they are made one after the other."""

T = TypeVar("T")

Done = Callable[[Exception | None], None]
"""Called once when a change ends, with None or with the failure.

A change that cannot begin raises a RequestError instead.
"""
LabelDone = Callable[[Exception | str], None]
"""As `Done`; without a failure, with the reason why the label is not written, or an empty text."""


class Repository:
    """The models of one source. The three names of a pair of graphs change together.

    Args:
        sandbox: the same for versions that are loaded while others serve.
        changed: called with each name whose default version changes, and with None when the first
            loading is over.
        poll_interval_s: between two scans of the directory; None: no scan after the first.
        require_models: whether a server without any model is not ready.
    """

    def __init__(
        self,
        source: ModelSource,
        loader: Loader,
        sandbox: LoadSandbox,
        changed: Callable[[Entry | None], None],
        *,
        poll_interval_s: float | None = None,
        require_models: bool = False,
    ) -> None:
        self.registry = Registry()
        self._source = source
        self._loader = loader
        self._sandbox = sandbox
        self._changed = changed
        self._poll_interval_s = poll_interval_s
        self._require_models = require_models
        self._managers: dict[str, ModelManager] = {}
        self._scanned: dict[str, ModelDirectory] = {}
        self._remarks: set[str] = set()
        self._lock = threading.Lock()
        # Names with a change by call that has not ended.
        self._changing: set[str] = set()
        # None ends the thread.
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Whether the models of the first scan are in the registry.
        self._has_read = False
        self._is_loaded = threading.Event()
        self._stopping = threading.Event()
        self._thread = SupervisedThread(target=self._run, name="weir-loader", daemon=True)

    def start(self) -> None:
        """Begin to load the models of the directory, in the background."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether the first loading is over, and a model serves if there is any or must be one."""
        models = self.registry.models.values()
        has_ready = any(model.default.state is State.READY for model in models)
        is_empty = not models and not self._require_models
        return self._is_loaded.is_set() and (has_ready or is_empty)

    def get(self, name: str, version: str) -> Model:
        """The model that serves a version now; see `Registry.get`.

        Raises:
            ModelNotReady: also of a name that is not known yet, as the server starts.
        """
        try:
            return self.registry.get(name, version)
        except UnknownModel:
            if self._has_read or name in self.registry.models:
                raise
        raise ModelNotReady(
            f"model {name[:128]!r}: the server starts, and has not read its repository yet"
        )

    def gauges(self) -> list[ModelGauges]:
        """The load of each model, for a scrape; without versions that a call unloaded."""
        return [_gauges(entry) for entry in self.registry.entries() if entry.reason != UNLOADED]

    def load(self, name: str, done: Done, *, again: bool) -> None:
        """Load a model from disk and serve it; with `again`, also if its files serve already."""
        try:
            # Before the name becomes part of a path.
            check_name(name)
        except InvalidName:
            raise UnknownModel(f"unknown model {name[:128]!r}") from None

        def work() -> None:
            directory = self._scan_model(name)
            manager = self._known_or_new(name)
            manager.plan(directory, retry=True, again=again)
            if reason := manager.reconcile():
                raise ModelNotLoaded(f"model {name!r}: {reason}")

        self._begin(name, work, done)

    def unload(self, name: str, done: Done) -> None:
        """Unload a model; requests in its queue are answered."""
        self._known(name)
        self._begin(name, lambda: self._known(name).unload(forget=False), done)

    def set_label(self, name: str, label: str, number: int | None, done: LabelDone) -> None:
        """Move a label of a model, or (None) remove it, and write that to its `versions.toml`.

        Its version is loaded if necessary, unless a call unloaded the model.
        """

        def work() -> str:
            manager = self._known(name)
            if manager.is_unloaded:
                raise ModelNotReady(f"model {name!r} is unloaded: load it first")
            return manager.set_label(self._scan_model(name), label, number)

        self._known(name)
        self._begin(name, work, done)

    def close(self, timeout_s: float) -> bool:
        """Let every model answer its requests; True if all did in time."""
        self._stopping.set()
        self._sandbox.stop()
        self._jobs.put(None)
        versions = [
            version
            for manager in self._managers.values()
            for version in (*manager.serving, *manager.draining)
        ]
        schedulers = [model.scheduler for version in versions for model in version.values()]
        for scheduler in schedulers:
            scheduler.close()
        end_s = time.monotonic() + timeout_s
        ended = [scheduler.join(max(0.0, end_s - time.monotonic())) for scheduler in schedulers]
        return all(ended)

    def run_soon(self, job: Callable[[], None]) -> None:
        """Queue a function for the loading thread."""
        self._jobs.put(job)

    def _begin(
        self, name: str, work: Callable[[], T], done: Callable[[Exception | T], None]
    ) -> None:
        """Queue a change by call, one at a time for each model."""
        with self._lock:
            if self._stopping.is_set():
                raise Draining("the server is stopping")
            if name in self._changing:
                raise ModelNotReady(f"model {name!r} is being changed already: try again later")
            # One for each name, and a client may make up any number of names.
            if len(self._changing) >= MOST_WAITING:
                raise Overloaded(
                    f"{len(self._changing)} changes of models wait, the limit is {MOST_WAITING}"
                )
            self._changing.add(name)

        def job() -> None:
            outcome: Exception | T = Draining("the server is stopping")
            try:
                if not self._stopping.is_set():
                    outcome = work()
            except Exception as error:  # noqa: BLE001 - the caller gets it, also a bug
                outcome = error
            if self._stopping.is_set():
                # The stop interrupted the change.
                outcome = Draining("the server is stopping")
            with self._lock:
                is_ours = name in self._changing
                self._changing.discard(name)
            if is_ours:
                done(outcome)

        self.run_soon(job)
        if self._stopping.is_set():
            # The loading thread may have ended without this job: then this thread answers.
            job()

    def _known(self, name: str) -> ModelManager:
        """The manager of a directory that has versions in any state."""
        manager = self._managers.get(name)
        if manager is not None and not manager.is_gone:
            return manager
        if name in self.registry.models:
            raise InvalidRequest(f"model {name!r} is a graph of a pair: name the pair")
        raise UnknownModel(f"unknown model {name[:128]!r}")

    def _known_or_new(self, name: str) -> ModelManager:
        if name not in self._managers:
            manager = ModelManager(
                name,
                root=self._source.root,
                loader=self._loader,
                sandbox=self._sandbox,
                publish=partial(self._publish, name),
                run_soon=self.run_soon,
            )
            # Other threads read it.
            self._managers = {**self._managers, name: manager}
        # Also for one that was gone, and comes back.
        self._loader.metrics.model_known(name)
        return self._managers[name]

    def _scan_model(self, name: str) -> ModelDirectory:
        """A model's directory, as it is now."""
        if name in self.registry.models:
            self._known(name)
        directory = self._source.scan_model(name, self._loader.links)
        if directory is not None and directory.versions:
            return directory
        self._known(name)
        raise ModelNotLoaded(f"model {name!r} is no longer in the repository; what serves goes on")

    def _run(self) -> None:
        self._load_all()
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # our bug: the thread must make the next change
                logger.exception("repository change crashed")
            is_poll = job == self._poll
            # It may hold the last reference to an unloaded version.
            del job
            if not is_poll:
                heap.trim()

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._jobs.get(timeout=self._poll_interval_s)
        except queue.Empty:
            return self._poll

    def _load_all(self) -> None:
        found = {name: one for name, one in (self._scan() or {}).items() if one.versions}
        self._each(found, lambda name, one: self._known_or_new(name).plan(one))
        self._has_read = True
        self._each(found, lambda name, _: self._managers[name].reconcile(sandboxed=False))
        if self._stopping.is_set():
            return
        self._is_loaded.set()
        self._changed(None)
        models = self.registry.models.values()
        ready = sum(model.default.state is State.READY for model in models)
        logger.info("models loaded ready=%d failed=%d", ready, len(models) - ready)

    def _poll(self) -> None:
        before, now = self._scanned, self._scan()
        if now is None:
            return
        for name in self._managers.keys() - now.keys() - before.keys():
            manager = self._managers[name]
            if not manager.is_unloading:
                logger.info("model directory removed model=%s", name)
                manager.unload(forget=True)
            elif not manager.draining:
                self._managers = {key: each for key, each in self._managers.items() if key != name}
        self._each(now, lambda name, one: self._known_or_new(name).follow(one, before.get(name)))

    def _each(
        self, found: dict[str, ModelDirectory], step: Callable[[str, ModelDirectory], object]
    ) -> None:
        """Do a step for each model, until the server stops."""
        for name, directory in found.items():
            if self._stopping.is_set():
                return
            try:
                step(name, directory)
            except Exception:  # our bug: the thread must go on with the other models
                logger.exception("model change crashed model=%s", name)

    def _scan(self) -> dict[str, ModelDirectory] | None:
        """The models on disk; None if the scan fails, so that nothing changes."""
        try:
            found, remarks = self._source.scan(self._loader.links)
        except OSError as error:
            found, remarks = None, [f"repository unreadable reason={error.strerror}"]
        if found == {} and self._scanned:
            # An unmounted volume looks like this.
            found, remarks = None, [*remarks, "repository is empty, models stay loaded"]
        elif found == {}:
            remarks.append(f"repository has no model expected=NAME/VERSION/{MODEL}")
        for remark in sorted(set(remarks) - self._remarks):
            logger.warning("%s", remark)
        self._remarks = set(remarks)
        if found is not None:
            self._scanned = found
        return found

    def _publish(self, directory: str) -> None:
        """Replace a directory's part of the registry.

        Metrics of removed versions are dropped, and changed defaults are reported. The cost must
        not grow with the other models: a start publishes twice for each of them.
        """
        before = self.registry.models
        models, changed = self._merged(directory)
        new, old = _versions(models, changed), _versions(before, changed)
        for name, version in new - old:
            self._loader.metrics.model(name, version)
        self.registry = Registry(models)
        for name, version in old - new:
            self._loader.metrics.forget(name, version)
        for name in changed:
            if name not in models:
                self._loader.metrics.forget_loads(name)
                gone = before[name].default
                self._changed(replace(gone, state=State.UNAVAILABLE, model=None))
            elif name not in before or _served(before[name]) != _served(models[name]):
                self._changed(models[name].default)

    def _merged(self, directory: str) -> tuple[dict[str, ModelVersions], list[str]]:
        """The registry's models with a directory as it is now, and the names that may differ."""
        before, part = self.registry.models, self._managers[directory].entries()
        held = {name for name, model in before.items() if model.directory == directory}
        if held <= part.keys() and not any(name in before for name in part.keys() - held):
            return {**before, **part}, list(part)
        # Two directories serve one name: a pair comes before one with the name of its graph.
        models = dict[str, ModelVersions]()
        for name in sorted(self._managers, reverse=True):
            models.update(self._managers[name].entries())
        return models, [*models, *(before.keys() - models.keys())]


def _versions(models: Mapping[str, ModelVersions], names: Iterable[str]) -> set[tuple[str, str]]:
    return {
        (name, version) for name in names if name in models for version in models[name].versions
    }


def _served(model: ModelVersions) -> tuple[str, State]:
    return model.default.version, model.default.state


def _gauges(entry: Entry) -> ModelGauges:
    load = entry.model.scheduler.load() if entry.model else None
    decision = entry.model.scheduler.decision if entry.model else None
    budget = entry.model.scheduler.budget if entry.model else None
    return ModelGauges(
        model=entry.name,
        version=entry.version,
        is_ready=entry.state is State.READY,
        waiting_requests=load.waiting_requests if load else 0,
        waiting_rows=load.waiting_rows if load else 0,
        running_requests=load.running_requests if load else 0,
        queue_limit_rows=(entry.model.settings.max_queue_rows or 1) if entry.model else None,
        is_batched=decision.is_batched if decision else None,
        batched_by=decision.basis.value if decision else "",
        inflight_bytes=budget.held_bytes if budget else 0,
        inflight_limit_bytes=budget.limit_bytes if budget else None,
        expected_s=load.expected_s if load else None,
    )
