"""One model, kept as its directory and its operator want it: what `lifecycle` says, done.

Called by one thread alone, `weir-loader`.
"""

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from weir.server.errors import ModelLoadError
from weir.server.repository import version_state
from weir.server.repository.load_sandbox import Trial
from weir.server.repository.loader import Loader
from weir.server.repository.registry import Models, Offer, offers_of
from weir.server.repository.retirement import retire
from weir.server.repository.scan import Files, Found, steady, without_root
from weir.server.repository.version_state import State, Wanted
from weir.server.repository.wishes import Wishes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shell:
    """What an upkeep works with.

    Attributes:
        root: of the repository.
        loader: loads one version.
        trial: likewise, once a process of its own has.
        publish: told that what the model offers has changed.
        call: has the loading thread do something, soon.
        clock: seconds since 1970.
    """

    root: Path
    loader: Loader
    trial: Trial
    publish: Callable[[], None]
    call: Callable[[Callable[[], None]], None]
    clock: Callable[[], float] = time.time


class Upkeep:
    """The versions of one model, and the sessions behind them.

    Args:
        name: of the model's directory.
        shell: around it.
    """

    def __init__(self, name: str, shell: Shell) -> None:
        self.name = name
        self.on_disk: tuple[int, ...] = ()
        # Left the catalogue, and not yet let go.
        self.leaving: list[Models] = []
        self._shell = shell
        self._model: version_state.Model[Models] = version_state.Model()
        self._brought: Found | None = None
        self._wishes = Wishes(name)
        self._problem = ""
        self.is_unloaded = False

    @property
    def serving(self) -> list[Models]:
        """What answers, of every version."""
        return [version.model for version in self._model.versions.values() if version.model]

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left to be told of it."""
        return not self._model.versions

    @property
    def is_leaving(self) -> bool:
        """Whether nothing of it will answer again, unless it is brought."""
        return all(each.state is State.UNLOADING for each in self._model.versions.values())

    def offers(self) -> dict[str, Offer]:
        """By name, what may be asked for."""
        return offers_of(self.name, self._model, self._problem)

    def follow(self, now: Found, before: Found | None) -> None:
        """Bring what a look at the directory found, if anything counts that did not before."""
        serving = {
            number: version.files
            for number, version in self._model.versions.items()
            if version.model is not None and isinstance(version.files, Files)
        }
        counted = steady(now, before, serving)
        if counted.versions and counted != self._brought:
            self.bring(counted)

    def announce(self, found: Found) -> None:
        """Tell of what is about to be loaded."""
        wanted = self._wanted(found)
        for number in () if self._problem else version_state.to_load(self._model, wanted):
            files = wanted.versions[number]
            self._model = version_state.loading(self._model, number, files, self._shell.clock())
        self._shell.publish()

    def bring(
        self, found: Found, *, retry: bool = False, again: bool = False, is_first: bool = False
    ) -> str:
        """Load what is wanted and not there, let go of what is not wanted.

        Args:
            found: the model's directory.
            retry: load also what failed, from the same files.
            again: load also what serves, from the same files.
            is_first: whether nothing serves yet that a load could harm: none is tried before then.

        Returns:
            Why not all that is wanted serves; nothing where it does.
        """
        self.is_unloaded = False
        self.on_disk = tuple(sorted(found.versions, reverse=True))
        self._brought = found
        wanted = self._wanted(found)
        if self._problem:
            return self._fail(max(found.versions))
        reasons = []
        for number in version_state.to_load(self._model, wanted, retry=retry, again=again):
            loader = self._shell.loader if is_first else self._shell.trial
            reason = self._load(loader, number, wanted.versions[number])
            if reason:
                reasons.append(f"version {number}: {reason}")
            # At once: the next one may take long.
            self._settle(wanted)
        self._settle(wanted)
        return "; ".join(reasons)

    def unload(self, *, forget: bool) -> None:
        """Take every version out of service.

        Args:
            forget: whether to tell nothing of it any longer, rather than that it was unloaded.
        """
        if forget or self.serving:
            # The same files may come back.
            self.is_unloaded, self._brought = not forget, None
            self._settle(Wanted(labels={} if forget else self._model.labels))

    def label(self, found: Found, label: str, number: int | None) -> str:
        """Move a label by call, or (None) end that; why it stayed where it was, or nothing.

        Raises:
            RequestError: there is nothing to be ended.
        """
        before = self._wishes.called
        self._wishes.label(label, number)
        # What failed before is tried again only if the label waits for it.
        self.bring(found, retry=number is not None and not self._model.is_ready(number))
        if self._problem:
            self._wishes.called = before
            return self._problem
        if number is None or self._model.is_ready(number):
            return ""
        self._wishes.called, reason = before, self._model.versions[number].reason
        self._settle(self._wanted(found))
        return reason

    def _wanted(self, found: Found) -> Wanted:
        self._problem = without_root(self._wishes.read(found.directory), self._shell.root)
        return self._wishes.wanted(found)

    def _load(self, loader: Loader | Trial, number: int, files: Hashable) -> str:
        """Load a version and let it serve; why it cannot, or nothing."""
        shell, clock = self._shell, self._shell.clock
        self._model = version_state.loading(self._model, number, files, clock())
        shell.publish()
        try:
            models = loader.load(self.name, str(number), shell.root / self.name / str(number))
        except ModelLoadError as error:
            reason, failure = without_root(str(error), shell.root), type(error)
        except Exception:
            reason, failure = "internal error, see the server's log", ModelLoadError
            logger.exception("loading failed model=%s version=%s", self.name, number)
        else:
            for model in models:
                logger.info(
                    "model ready model=%s version=%s provider=%s seconds=%.2f",
                    model.name, number, model.provider, model.metrics.load_seconds,
                )  # fmt: skip
            served = {model.name: model for model in models}
            self._model, replaced = version_state.loaded(
                self._model, number, files, served, clock()
            )
            shell.publish()
            shell.loader.metrics.load_ended(self.name, None)
            if replaced is not None:
                self._retire(number, replaced)
            return ""
        self._fail_version(number, files, reason)
        shell.loader.metrics.load_ended(self.name, failure)
        shell.publish()
        return reason

    def _fail(self, number: int) -> str:
        """Nobody knows what is wanted: what serves goes on, where nothing does a version says why."""
        if self.serving:
            logger.warning("model stays as it is model=%s reason=%s", self.name, self._problem)
        else:
            self._fail_version(number, None, self._problem)
        self._shell.publish()
        return self._problem

    def _fail_version(self, number: int, files: Hashable, reason: str) -> None:
        logger.warning("model failed model=%s version=%s reason=%s", self.name, number, reason)
        self._model = version_state.failed(self._model, number, files, reason, self._shell.clock())

    def _settle(self, wanted: Wanted) -> None:
        before = self._model
        self._model, leaving = version_state.settled(self._model, wanted, self._shell.clock())
        _log_moves(self.name, before, self._model)
        # Before anything is closed: a request that is refused there finds its successor here.
        self._shell.publish()
        for number, models in leaving.items():
            self._retire(number, models)

    def _retire(self, number: int, models: Models) -> None:
        self.leaving.append(models)
        retire(
            self.name, number, models, lambda: self._shell.call(lambda: self._left(number, models))
        )

    def _left(self, number: int, models: Models) -> None:
        self.leaving = [each for each in self.leaving if each is not models]
        self._model = version_state.left(
            self._model, number, self._shell.clock(), unloaded=self.is_unloaded
        )
        logger.info("model left model=%s version=%s", self.name, number)
        self._shell.publish()


def _log_moves(
    name: str, before: version_state.Model[Models], now: version_state.Model[Models]
) -> None:
    """Who asks at three in the morning what answers since when, finds it in the log."""
    if now.answering != before.answering:
        logger.info(
            "answering model=%s version=%s before=%s",
            name, now.answering or "none", before.answering or "none",
        )  # fmt: skip
    for label in sorted(before.labels.keys() | now.labels.keys()):
        old, new = before.labels.get(label), now.labels.get(label)
        # Where nothing serves, a label is not there yet.
        old, new = (old if before.is_ready(old) else None), (new if now.is_ready(new) else None)
        if old != new:
            logger.info(
                "label moved model=%s label=%s version=%s before=%s",
                name, label, new or "none", old or "none",
            )  # fmt: skip
