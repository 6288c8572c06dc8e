"""File watcher: loads certificates and tokens again when their files change.

Thread: `weir-credentials`. It reads the files, which are small, every `LOOK_S` seconds. It compares
contents: the times of a file may be equal before and after a change.

Rules:
- A change is loaded by the second look that reads the same contents. A file that is half written,
  and a certificate whose key has not been replaced yet, are therefore not loaded.
- If a change cannot be loaded, the former contents stay in use, and one warning says so.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from weir.server.errors import ConfigError
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

LOOK_S = 1.0
_MAX_BYTES = 1024 * 1024

Contents = tuple[bytes, ...]


class FileWatcher:
    """Watches groups of files; each group is loaded as a whole."""

    def __init__(self, *, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._groups: list[_Group] = []
        self._stopping = threading.Event()
        self._thread = SupervisedThread(target=self._run, name="weir-credentials", daemon=True)

    def load(self, setting: str, files: Sequence[Path], load: Callable[[Contents], None]) -> None:
        """Load files, and from `start` on also each change of them.

        Args:
            setting: names the files in messages.
            load: takes the contents into use; raises ConfigError if it cannot.

        Raises:
            ConfigError: the files cannot be read or loaded.
        """
        contents = _read(setting, files)
        load(contents)
        self._groups.append(_Group(setting, files, load, contents))

    def start(self) -> None:
        """Begin to watch, if any file was loaded."""
        if self._groups:
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Compare every group with its files once."""
        for group in self._groups:
            try:
                group.look()
            except Exception:  # our bug: the other files are still watched
                logger.exception("credentials look crashed setting=%s", group.setting)

    def _run(self) -> None:
        while not self._stopping.wait(self._look_s):
            self.look()


class _Group:
    """Files that are loaded together; `seen` is what the last look read."""

    def __init__(
        self,
        setting: str,
        files: Sequence[Path],
        load: Callable[[Contents], None],
        contents: Contents,
    ) -> None:
        self.setting = setting
        self._files = files
        self._load = load
        self._seen: Contents | str = contents
        # Loaded, or refused with a warning.
        self._done: Contents | str = contents

    def look(self) -> None:
        found: Contents | str
        try:
            found = _read(self.setting, self._files)
        except ConfigError as error:
            found = str(error)
        is_settled, self._seen = found == self._seen, found
        if not is_settled or found == self._done:
            return
        self._done = found
        problem = found if isinstance(found, str) else self._problem(found)
        if problem is None:
            logger.info("credentials reloaded setting=%s", self.setting)
        else:
            logger.warning(
                "credentials not reloaded, the former stay in use setting=%s reason=%s",
                self.setting, problem,
            )  # fmt: skip

    def _problem(self, contents: Contents) -> str | None:
        """Load the contents; the reason if that fails."""
        try:
            self._load(contents)
        except ConfigError as error:
            return str(error)
        return None


def _read(setting: str, files: Sequence[Path]) -> Contents:
    return tuple(_read_one(setting, file) for file in files)


def _read_one(setting: str, file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{setting}: {file}: {error.strerror or error}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{setting}: {file}: expected at most {_MAX_BYTES} bytes, got more")
    return content
