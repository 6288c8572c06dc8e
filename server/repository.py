"""Which models exist and which version of each answers.

Thread: `weir-loader`, the only one that loads. Everybody else reads a snapshot, which is replaced as
a whole by one assignment: a lookup takes no lock.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from bundle import reader
from bundle.errors import InvalidName
from bundle.repository import check_name, versions
from server.errors import InvalidRequest, ModelFailed, ModelNotReady, UnknownModel
from server.generation.served import ServedPair
from server.metrics import ModelGauges
from server.model import Loader, ServedModel, served_name

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")


class State(Enum):
    """Where a version is in its life, in the protocol's words."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Entry:
    """A version that exists, under a name it is asked by; `reason` says why it is not ready."""

    name: str
    version: str
    state: State
    reason: str = ""
    model: ServedModel | ServedPair | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A version to be loaded, and the names it will be asked by."""

    name: str
    version: str
    served: tuple[str, ...]

    def entries(self, state: State, reason: str = "") -> list[Entry]:
        return [Entry(name, self.version, state, reason) for name in self.served]


class Repository:
    """The models of one directory; of each, the highest version is served.

    A pair of graphs is three entries, `NAME`, `NAME.encoder` and `NAME.decoder`, which change together.

    Args:
        root: holds `<name>/<version>/`.
        loader: loads one version.
        changed: told of every entry that changes, and (None) when the first loading is over.
    """

    def __init__(self, root: Path, loader: Loader, changed: Callable[[Entry | None], None]) -> None:
        self._root = root
        self._loader = loader
        self._changed = changed
        self._entries: Mapping[str, Entry] = MappingProxyType({})
        self._is_loaded = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._load_all, name="weir-loader", daemon=True)

    def start(self) -> None:
        """Begin to load what is in the directory, in the background."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether the first loading is over, and left something that answers if there was any."""
        entries = self._entries.values()
        return self._is_loaded.is_set() and (
            not entries or any(entry.state is State.READY for entry in entries)
        )

    def entries(self) -> list[Entry]:
        """Every known version, by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def entry(self, name: str, version: str) -> Entry:
        """What is known of a model.

        Args:
            name: of the model; only ever looked up, never made a path of.
            version: a number, or nothing for the one that is served.

        Raises:
            InvalidRequest: there is no name, or the version is no number.
            UnknownModel: there is no such model or version.
        """
        entry = self._entries.get(name)
        if version and not _VERSION.fullmatch(version):
            raise InvalidRequest(f"model version: expected a number, got {version[:64]!r}")
        if not name:
            raise InvalidRequest("model name: expected one, got none")
        if entry is None:
            raise UnknownModel(f"unknown model {name[:128]!r}")
        if version and version != entry.version:
            raise UnknownModel(
                f"model {name!r} has no version {version}; {entry.version} is served"
            )
        return entry

    def get(self, name: str, version: str) -> ServedModel | ServedPair:
        """The model that answers a request; see `entry`.

        Raises:
            ModelNotReady: it is known and cannot answer now.
        """
        entry = self.entry(name, version)
        if entry.model is None:
            raise ModelNotReady(
                f"model {name!r} version {entry.version} is {entry.state.value.lower()}"
            )
        return entry.model

    def gauges(self) -> list[ModelGauges]:
        """What each model holds now, for a scrape."""
        gauges = []
        for entry in self._entries.values():
            load = entry.model.scheduler.load() if entry.model else None
            gauges.append(
                ModelGauges(
                    model=entry.name,
                    version=entry.version,
                    is_ready=entry.state is State.READY,
                    waiting_requests=load.waiting_requests if load else 0,
                    waiting_rows=load.waiting_rows if load else 0,
                    running_requests=load.running_requests if load else 0,
                )
            )
        return gauges

    def close(self, timeout_s: float) -> bool:
        """Let every model finish what it holds; True if all did in time."""
        self._stopping = True
        models = [entry.model for entry in self._entries.values() if entry.model]
        for model in models:
            model.scheduler.close()
        end_s = time.monotonic() + timeout_s
        ended = [model.scheduler.join(max(0.0, end_s - time.monotonic())) for model in models]
        return all(ended)

    def _load_all(self) -> None:
        found = self._find()
        for each in found:
            self._publish(each.entries(State.LOADING))
        for each in found:
            if self._stopping:
                return
            self._publish(self._load(each))
        self._is_loaded.set()
        self._changed(None)
        ready = sum(entry.state is State.READY for entry in self._entries.values())
        logger.info("models loaded ready=%d failed=%d", ready, len(self._entries) - ready)

    def _find(self) -> list[_Found]:
        found: list[_Found] = []
        taken: dict[str, str] = {}
        for directory in sorted(self._root.iterdir()):
            try:
                check_name(directory.name)
            except InvalidName:
                continue
            numbers = _versions(directory)
            if numbers and directory.name in taken:
                # A pair comes first: its name is how the other begins.
                logger.warning(
                    "model passed over model=%s reason=%r is the name of a graph of the pair %r",
                    directory.name, directory.name, taken[directory.name],
                )  # fmt: skip
            elif numbers:
                one = _found(directory, str(numbers[-1]))
                found.append(one)
                taken.update(dict.fromkeys(one.served, one.name))
            elif directory.is_dir():
                logger.warning("model has no version directory model=%s", directory.name)
        return found

    def _load(self, found: _Found) -> list[Entry]:
        name, version = found.name, found.version
        try:
            models = self._loader.load(name, version, self._root / name / version)
        except ModelFailed as error:
            # As `bundle` writes it: without the dots that `Path.absolute` would leave in.
            root = os.path.abspath(self._root)  # noqa: PTH100
            reason = str(error).replace(f"{root}{os.sep}", "")
            logger.warning("model failed model=%s version=%s reason=%s", name, version, reason)
            return found.entries(State.UNAVAILABLE, reason)
        except Exception:
            logger.exception("model failed model=%s version=%s", name, version)
            return found.entries(State.UNAVAILABLE, "internal error, see the server's log")
        for model in models:
            logger.info(
                "model ready model=%s version=%s provider=%s seconds=%.2f",
                model.name, version, model.provider, model.metrics.load_seconds,
            )  # fmt: skip
        return [Entry(model.name, version, State.READY, model=model) for model in models]

    def _publish(self, entries: list[Entry]) -> None:
        changed = {entry.name: entry for entry in entries}
        self._entries = MappingProxyType({**self._entries, **changed})
        for entry in entries:
            self._changed(entry)


def _found(directory: Path, version: str) -> _Found:
    parts = ("encoder", "decoder", None) if reader.is_pair(directory / version) else (None,)
    served = tuple(served_name(directory.name, part) for part in parts)
    return _Found(directory.name, version, served)


def _versions(directory: Path) -> list[int]:
    try:
        return versions(directory) if directory.is_dir() else []
    except OSError as error:
        logger.warning("model cannot be read model=%s reason=%s", directory.name, error.strerror)
        return []
