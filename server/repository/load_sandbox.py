"""Tries a version in a process of its own before it is loaded beside others that serve.

A load may crash its process, never end, or take all memory there is. Here it does so where nobody is served: a
child reads and proves the version as this process will (`model.Loader`), and tells how that ended. Only then is
it loaded here, from files that are read and proved once more.

Rules:
- The child has a time limit and, where one is set, a memory limit.
- It ends with the process that started it: at the end of its standard input, of which that one holds the other end.
- It inherits nothing else but the pipe of its answer, and what libraries print there is dropped.
- Its turn on a core comes after everything that serves, and where memory runs out, it is ended first.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from weir.server.config import ModelSettings
from weir.server.errors import GoldenMismatch, ModelLoadError, OutOfMemory
from weir.server.repository.loader import Loader, served_name
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Model
from weir.server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_NICENESS = 10
_MOST_TEXT = 8000


class LoadSandbox:
    """Loads a version as `loader` does, once a child has.

    Args:
        loader: of this process.
        timeout_s: for the child, from its start.
        memory_bytes: that a version may take in the child, on the CPU; None sets no limit.
    """

    def __init__(self, loader: Loader, *, timeout_s: float, memory_bytes: int | None) -> None:
        self._loader = loader
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def load(self, name: str, version: str, directory: Path) -> list[Model]:
        """The models of a version; see `Loader.load`.

        Raises:
            ModelLoadError: the reason why it cannot be served, or that the trial went wrong or was stopped.
        """
        started_s = time.monotonic()
        self._try(name, self._job(name, version, directory))
        logger.info(
            "model tried model=%s version=%s seconds=%.2f",
            name, version, time.monotonic() - started_s,
        )  # fmt: skip
        return self._loader.load(name, version, directory)

    def stop(self) -> None:
        """End every trial, also those that are yet to begin."""
        with self._lock:
            self._is_stopped = True
            for child in self._children:
                child.kill()

    def _job(self, name: str, version: str, directory: Path) -> str:
        names = [served_name(name, part) for part in (None, "encoder", "decoder")]
        return json.dumps(
            {
                "name": name,
                "version": version,
                "directory": str(directory),
                "memory_bytes": self._memory_bytes,
                "provider": self._loader.provider,
                "threads": self._loader.threads,
                "max_message_bytes": self._loader.max_message_bytes,
                "settings": {each: self._loader.settings(each).model_dump() for each in names},
            }
        )

    def _try(self, name: str, job: str) -> None:
        with _started(job) as child:
            with self._lock:
                self._children.add(child)
                if self._is_stopped:
                    child.kill()
            try:
                answer, _ = child.communicate(timeout=self._timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                raise ModelLoadError(
                    f"tried in a process of its own, it was not loaded within {self._timeout_s:g} s "
                    "(load_timeout_s)"
                ) from None
            finally:
                with self._lock:
                    self._children.discard(child)
        if self._is_stopped:
            raise ModelLoadError("the server is stopping")
        _judge(name, answer, child.returncode)


@contextmanager
def _started(job: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A child at its job; it has ended when this has."""
    # What this process imports, the child imports: the working directory, say, is not looked into first.
    command = [sys.executable, "-P", "-m", "weir.server.repository.load_sandbox", job]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    its_end, our_end = os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S603 - this program itself
            command,
            stdin=its_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # A signal from the keyboard is for this process.
            start_new_session=True,
        )
    except OSError as error:
        os.close(our_end)
        raise ModelLoadError(f"no process can be started to try it: {error.strerror}") from error
    finally:
        os.close(its_end)
    with child:
        try:
            yield child
        finally:
            os.close(our_end)


def _judge(name: str, answer: bytes, exit_code: int) -> None:
    """Raise what went wrong in the child, if anything did."""
    if exit_code < 0:
        cause = signal.Signals(-exit_code).name
        hint = ", perhaps for want of memory" if cause == "SIGKILL" else ""
        raise ModelLoadError(f"the process that tried it was ended by {cause}{hint}")
    if exit_code > 0 or not answer:
        raise ModelLoadError(f"the process that tried it ended with exit code {exit_code}")
    told = json.loads(answer)
    if told["bug"]:
        raise RuntimeError(f"trial of {name}:\n{told['bug']}")
    if told["reason"]:
        raise (GoldenMismatch if told["mismatch"] else ModelLoadError)(told["reason"])


def main() -> None:
    """The child: load, and tell how it ended."""
    threading.Thread(target=_end_with_parent, name="weir-parent", daemon=True).start()
    job = json.loads(sys.argv[1])
    # Whatever else is printed goes where standard error goes.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _step_back()
    told = _attempt(job)
    answers.write(json.dumps({key: text[-_MOST_TEXT:] for key, text in told.items()}))
    answers.flush()
    os._exit(0)


def _step_back() -> None:
    """Let everybody else go first; and if memory runs out, be the one that the system ends."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _attempt(job: dict[str, Any]) -> dict[str, str]:
    """Why the version cannot be served, what it does not match, and of our own bugs the traceback; empty if it can."""
    try:
        with _limited_memory(None if job["provider"] == "cuda" else job["memory_bytes"]):
            _loader(job).load(job["name"], job["version"], Path(job["directory"]))
    except (ModelLoadError, MemoryError) as error:
        reason = str(error) or "it needs more memory than there is"
        if job["memory_bytes"] and _is_for_memory(error):
            reason += f" (load_memory_bytes is {job['memory_bytes']})"
        mismatch = "golden" if isinstance(error, GoldenMismatch) else ""
        return {"reason": reason, "mismatch": mismatch, "bug": ""}
    except Exception:  # noqa: BLE001 - told, and logged by the parent
        return {"reason": "", "mismatch": "", "bug": traceback.format_exc()}
    return {"reason": "", "mismatch": "", "bug": ""}


def _is_for_memory(error: BaseException | None) -> bool:
    """Whether it is, or came of, a want of memory."""
    return error is not None and (
        isinstance(error, (MemoryError, OutOfMemory)) or _is_for_memory(error.__cause__)
    )


def _loader(job: dict[str, Any]) -> Loader:
    settings = {name: ModelSettings(**own) for name, own in job["settings"].items()}
    return Loader(
        provider=job["provider"],
        threads=job["threads"],
        max_message_bytes=job["max_message_bytes"],
        settings=settings.__getitem__,
        deadlines=Deadlines(time.monotonic),
        metrics=Metrics(CollectorRegistry()),
    )


@contextmanager
def _limited_memory(extra_bytes: int | None) -> Iterator[None]:
    """So much address space beyond what is in use; without effect but on Linux."""
    if extra_bytes is None or sys.platform != "linux":
        yield
        return
    import resource  # noqa: PLC0415 - not everywhere

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    main()
