"""Model manager: brings one model to its desired state; loads, replaces and drains versions.

Threads:
- `weir-loader` makes every call.
- `weir-drain-<model>-<version>` lives as long as an unloaded version has requests. The session is
  freed with its last reference, which is after its last run: a session that was freed under a run
  would take the process down.
"""

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from weir.bundle import versions
from weir.bundle.errors import BundleError
from weir.bundle.version_labels import write_labels
from weir.bundle.versions import FILE_NAME, VersionsFile
from weir.server.errors import ModelLoadError, ModelNotLoaded, UnknownModel
from weir.server.repository import version_state
from weir.server.repository.load_sandbox import LoadSandbox
from weir.server.repository.loader import Loader
from weir.server.repository.registry import LoadedVersion, ModelVersions, entries_of
from weir.server.repository.scan import (
    ModelDirectory,
    VersionFiles,
    debounce,
    read_policy,
    without_root,
)
from weir.server.repository.version_state import Desired, ModelStatus, State
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

_DRAIN_WARNING_S = 60.0


class ModelManager:
    """The versions of one model directory.

    Args:
        publish: called after each change of state.
        run_soon: queues a function for the loading thread.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        *,
        root: Path,
        loader: Loader,
        sandbox: LoadSandbox,
        publish: Callable[[], None],
        run_soon: Callable[[Callable[[], None]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        # No longer in the registry, and not yet unloaded.
        self.draining: list[LoadedVersion] = []
        self.is_unloaded = False
        self._root = root
        self._loader = loader
        self._sandbox = sandbox
        self._publish = publish
        self._run_soon = run_soon
        self._clock = clock
        self._status: ModelStatus[LoadedVersion] = ModelStatus()
        self._directory: ModelDirectory | None = None
        self._version_path = ModelDirectory(name, root / name, {}).version_path
        self._on_disk: tuple[int, ...] = ()
        self._policy = VersionsFile()
        # Set (None: removed) by call and not written to the file, which they override.
        self._unwritten: Mapping[str, int | None] = {}
        self._desired = Desired()
        self._to_load: list[int] = []
        # Why the policy cannot be read.
        self._problem = ""

    @property
    def serving(self) -> list[LoadedVersion]:
        """The versions that serve."""
        return [version.model for version in self._status.versions.values() if version.model]

    @property
    def is_gone(self) -> bool:
        """Whether it has no version in any state."""
        return not self._status.versions

    @property
    def is_unloading(self) -> bool:
        """Whether all its versions are being unloaded."""
        return all(each.state is State.UNLOADING for each in self._status.versions.values())

    def entries(self) -> dict[str, ModelVersions]:
        """Its part of the registry, by the names in requests."""
        return entries_of(self.name, self._on_disk, self._status, self._problem)

    def follow(self, now: ModelDirectory, before: ModelDirectory | None) -> None:
        """Reconcile with the latest scan, if it differs from the last one that counted."""
        serving = {
            number: version.files
            for number, version in self._status.versions.items()
            if version.model is not None and isinstance(version.files, VersionFiles)
        }
        counted = debounce(now, before, serving)
        if counted.versions and counted != self._directory:
            self.plan(counted)
            self.reconcile()

    def plan(self, directory: ModelDirectory, *, retry: bool = False, again: bool = False) -> None:
        """Read the desired state, and mark the versions to load as LOADING; see `to_load`."""
        self.is_unloaded = False
        self._directory = directory
        self._version_path = directory.version_path
        self._on_disk = tuple(sorted(directory.versions, reverse=True))
        self._problem = self._read_policy(directory)
        self._desired = self._desired_state(directory)
        self._to_load = []
        if not self._problem:
            self._to_load = version_state.to_load(
                self._status, self._desired, retry=retry, again=again
            )
        status, now = self._status, self._clock()
        for number in self._to_load:
            files = self._desired.versions[number]
            status = version_state.mark_loading(status, number, files, now)
        if status is not self._status:
            self._status = status
            self._publish()

    def reconcile(self, *, sandboxed: bool = True) -> str:
        """Load the planned versions, one after the other, and unload those that are not desired.

        Args:
            sandboxed: load each version in a process of its own first. Before the first model
                serves, a load can harm none.

        Returns:
            Why a desired version does not serve; empty if all do.
        """
        if self._problem:
            return self._keep_without_policy()
        if not self._to_load:
            self._settle()
        reasons = [
            f"version {number}: {reason}"
            for number in self._to_load
            if (reason := self._load(self._sandbox if sandboxed else self._loader, number))
        ]
        return "; ".join(reasons)

    def unload(self, *, forget: bool) -> None:
        """Unload every version; with `forget`, remove them from the registry, too."""
        if forget or self.serving:
            # The same files may come back.
            self.is_unloaded, self._directory = not forget, None
            self._desired = Desired(labels={} if forget else self._status.labels)
            self._settle()

    def set_label(self, directory: ModelDirectory, label: str, number: int | None) -> str:
        """Set a label by call, or (None) remove it, and write it to the model's `versions.toml`.

        Returns:
            Why it is not written, so that it holds until the server stops; empty if it is written.

        Raises:
            UnknownModel: there is no such label to remove.
            ModelNotLoaded: its version cannot be loaded, or the policy is malformed.
        """
        before, known = self._unwritten, self._labels
        if number is None and label not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UnknownModel(f"model {self.name!r} has no label {label[:64]!r}; it has {listed}")
        self._unwritten = {**before, label: number}
        # A version that failed is loaded again only if the label needs it.
        self.plan(directory, retry=number is not None and not self._status.is_ready(number))
        self.reconcile()
        if not self._problem and (number is None or self._status.is_ready(number)):
            return self._write_labels(directory)
        self._unwritten = before
        problem = self._problem
        if not problem:
            problem = self._status.versions[number].reason if number else ""
            self._desired = self._desired_state(directory)
            self._settle()
        where = f"model {self.name!r}" + (f" version {number}" if number else "")
        what = "stays" if label in known else "is not set"
        raise ModelNotLoaded(f"label {label!r} {what}: {where}: {problem}")

    def _write_labels(self, directory: ModelDirectory) -> str:
        """Write the labels that are not written; why that fails, or empty."""
        if directory.alone is not None:
            return "one version is served, without a directory of versions"
        try:
            write_labels(directory.path, self._unwritten)
        except BundleError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{FILE_NAME} cannot be written: {error.strerror or error}"
        else:
            self._policy = replace(self._policy, labels=self._labels)
            self._unwritten = {}
            return ""
        reason = without_root(reason, self._root)
        logger.warning(
            "labels hold until the server stops model=%s labels=%s reason=%s",
            self.name, ", ".join(sorted(self._unwritten)), reason,
        )  # fmt: skip
        return reason

    @property
    def _labels(self) -> dict[str, int]:
        """The labels to serve: those of the file, changed by those that are not written."""
        labels = {**self._policy.labels, **self._unwritten}
        return {label: number for label, number in labels.items() if number is not None}

    def _read_policy(self, directory: ModelDirectory) -> str:
        """Read policy and labels; if that fails, keep the last ones and return the reason."""
        try:
            self._policy = read_policy(directory, self._loader.links)
        except (BundleError, ModelLoadError) as error:
            return without_root(str(error), self._root)
        return ""

    def _desired_state(self, directory: ModelDirectory) -> Desired:
        """Versions and labels to serve, including versions that are named and not on disk."""
        policy, labels = self._policy.policy, self._labels
        wanted = versions.versions_to_serve(VersionsFile(policy, labels), directory.versions)
        numbers = {*wanted, *labels.values(), *(policy.specific if policy else ())}
        return Desired({number: directory.versions.get(number) for number in numbers}, labels)

    def _load(self, loader: Loader | LoadSandbox, number: int) -> str:
        """Load a version and serve it; why it failed, or empty."""
        files, reason, failure = self._desired.versions[number], "", None
        replaced: LoadedVersion | None = None
        # The last line of the log, if the load ends the process.
        logger.info("version loading model=%s version=%s", self.name, number)
        try:
            models = loader.load(self.name, str(number), self._version_path(number))
        except ModelLoadError as error:
            reason, failure = without_root(str(error), self._root), type(error)
        except Exception:
            reason, failure = "internal error, see the server's log", ModelLoadError
            logger.exception("version load crashed model=%s version=%s", self.name, number)
        else:
            for model in models:
                logger.info(
                    "version loaded model=%s version=%s provider=%s seconds=%.2f",
                    model.name, number, model.provider, model.stats.load_seconds,
                )  # fmt: skip
            self._status, replaced = version_state.mark_ready(
                self._status, number, files, {model.name: model for model in models}, self._clock()
            )
        if failure is not None:
            self._mark_failed(number, files, reason)
        self._loader.metrics.load_ended(self.name, failure)
        self._settle({number: replaced} if replaced is not None else {})
        return reason

    def _keep_without_policy(self) -> str:
        """Keep what serves while the policy is malformed; else the highest version shows why."""
        if self.serving:
            logger.warning("model unchanged model=%s reason=%s", self.name, self._problem)
        else:
            self._mark_failed(max(self._on_disk), None, self._problem)
        self._publish()
        return self._problem

    def _mark_failed(self, number: int, files: Hashable, reason: str) -> None:
        logger.warning(
            "version load failed model=%s version=%s reason=%s", self.name, number, reason
        )
        self._status = version_state.mark_failed(self._status, number, files, reason, self._clock())

    def _settle(self, replaced: Mapping[int, LoadedVersion] = MappingProxyType({})) -> None:
        """Move labels and default, publish, and drain what no longer serves."""
        before = self._status
        self._status, leaving = version_state.settle(before, self._desired, self._clock())
        _log_moves(self.name, before, self._status)
        # Before any queue is closed: a request that is refused there finds its successor.
        self._publish()
        for number, version in (*replaced.items(), *leaving.items()):
            self.draining.append(version)
            SupervisedThread(
                target=self._drain,
                args=(number, version),
                name=f"weir-drain-{self.name}-{number}",
                daemon=True,
            ).start()

    def _drain(self, number: int, version: LoadedVersion) -> None:
        """Close the version's queues and wait for its requests; runs on a thread of its own."""
        for model in version.values():
            model.scheduler.close()
        for model in version.values():
            while not model.scheduler.join(_DRAIN_WARNING_S):
                logger.warning("version still has requests model=%s version=%s", self.name, number)
        self._run_soon(lambda: self._drained(number, version))

    def _drained(self, number: int, version: LoadedVersion) -> None:
        self.draining = [each for each in self.draining if each is not version]
        self._status = version_state.mark_unloaded(
            self._status, number, self._clock(), keep=self.is_unloaded
        )
        logger.info("version unloaded model=%s version=%s", self.name, number)
        self._publish()


def _log_moves(
    name: str, before: ModelStatus[LoadedVersion], now: ModelStatus[LoadedVersion]
) -> None:
    """Log a new default version and labels that moved."""
    if now.default != before.default:
        logger.info(
            "default version changed model=%s version=%s before=%s",
            name, now.default or "none", before.default or "none",
        )  # fmt: skip
    for label in sorted(before.labels.keys() | now.labels.keys()):
        old, new = before.labels.get(label), now.labels.get(label)
        # A label counts only if its version serves.
        old, new = (old if before.is_ready(old) else None), (new if now.is_ready(new) else None)
        if old != new:
            logger.info(
                "label moved model=%s label=%s version=%s before=%s",
                name, label, new or "none", old or "none",
            )  # fmt: skip
