"""Load sandbox: loads a version in a process of its own before this process loads it.

A load may crash its process, never end, or take all memory. Here it does so in a child process,
which reads and verifies the version as this process will (`loader`) and returns the result. Only
then is the version loaded here, from files that are read and verified once more.

Rules:
- The child has a time limit and, if one is set, a memory limit.
- It ends with the process that started it: its standard input ends, whose other end is held here.
- It inherits only the pipe of its result; what libraries print there is dropped.
- Its choices of threads and instances are used here, so that this load measures nothing.
- It runs only when no serving thread needs the core, and if memory runs out, it is killed first.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from weir.bundle.repository_files import LinkRoots
from weir.server.config import ModelSettings
from weir.server.errors import GoldenMismatch, ModelLoadError, OutOfMemory
from weir.server.repository.loader import Loader, served_name
from weir.server.repository.parallelism import Measured, Parallelism
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Model
from weir.server.telemetry.metrics import Metrics
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

_NICENESS = 10
_MAX_TEXT = 8000
_LARGE_BLOCK_BYTES = 1 << 17


class LoadSandbox:
    """Loads a version as `loader` does, after a child process has.

    Args:
        memory_bytes: that a version may take in the child, on the CPU; None sets no limit.
    """

    def __init__(self, loader: Loader, *, timeout_s: float, memory_bytes: int | None) -> None:
        self._loader = loader
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def load(self, name: str, version: str, path: Path) -> list[Model]:
        """Load and start the models of a version; see `Loader.load`."""
        started_s = time.monotonic()
        self._loader.measured.update(self._verify(name, self._job(name, version, path)))
        logger.info(
            "version verified in sandbox model=%s version=%s seconds=%.2f",
            name, version, time.monotonic() - started_s,
        )  # fmt: skip
        return self._loader.load(name, version, path)

    def stop(self) -> None:
        """End every child, also those that are yet to start."""
        with self._lock:
            self._is_stopped = True
            for child in self._children:
                child.kill()

    def _job(self, name: str, version: str, path: Path) -> str:
        names = [served_name(name, part) for part in (None, "encoder", "decoder")]
        return json.dumps(
            {
                "name": name,
                "version": version,
                "path": str(path),
                "memory_bytes": self._memory_bytes,
                "provider": self._loader.provider,
                "cores": self._loader.cores,
                "measured": {
                    each: asdict(self._loader.measured[each])
                    for each in names
                    if each in self._loader.measured
                },
                "operator_library": self._loader.operator_library,
                "max_message_bytes": self._loader.max_message_bytes,
                "link_roots": [str(root) for root in self._loader.links.directories],
                "settings": {each: self._loader.settings(each).model_dump() for each in names},
            }
        )

    def _verify(self, name: str, job: str) -> dict[str, Measured]:
        """Run a child; returns what it measured, or raises its failure."""
        with _started(job, is_limited=self._memory_bytes is not None) as child:
            with self._lock:
                self._children.add(child)
                if self._is_stopped:
                    child.kill()
            try:
                result, _ = child.communicate(timeout=self._timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                raise ModelLoadError(
                    f"load sandbox: expected the load to end within {self._timeout_s:g} s "
                    "(load_timeout_s)"
                ) from None
            finally:
                with self._lock:
                    self._children.discard(child)
        if self._is_stopped:
            raise ModelLoadError("the server is stopping")
        return _measured(_checked(name, result, child.returncode)["measured"])


@contextmanager
def _started(job: str, *, is_limited: bool) -> Iterator["subprocess.Popen[bytes]"]:
    """A child at work; on exit it has ended."""
    # The child imports from the same places, so not from the working directory first.
    command = [sys.executable, "-P", "-m", "weir.server.repository.load_sandbox", job]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if is_limited:
        # The limit is on the address space. glibc reserves 64 MiB and more of it for each thread of
        # the measurement, and keeps gaps that freed blocks leave. A graph of 85 MB needed 500 MB on
        # two cores, and 310 MB with one arena. One of 16 MiB needed 150 MiB with gaps, and 100 MiB
        # without. Runs of a model without an arena take up to a quarter more time, also in the
        # measurement of threads and instances; see `runtime/heap.py`.
        environment.setdefault("MALLOC_ARENA_MAX", "1")
        environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(_LARGE_BLOCK_BYTES))
    child_end, own_end = os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S603 - this program itself
            command,
            stdin=child_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # A signal from the keyboard must not reach it.
            start_new_session=True,
        )
    except OSError as error:
        os.close(own_end)
        raise ModelLoadError(
            f"load sandbox: no process can be started: {error.strerror}"
        ) from error
    finally:
        os.close(child_end)
    with child:
        try:
            yield child
        finally:
            os.close(own_end)


def _checked(name: str, result: bytes, exit_code: int) -> dict[str, Any]:
    """The result of a child; raises its failure, if it failed."""
    if exit_code < 0:
        cause = _signal_name(-exit_code)
        hint = ", perhaps for lack of memory" if cause == "SIGKILL" else ""
        raise ModelLoadError(f"load sandbox: the process was killed by {cause}{hint}")
    if exit_code > 0 or not result:
        raise ModelLoadError(f"load sandbox: the process ended with exit code {exit_code}")
    outcome: dict[str, Any] = json.loads(result)
    if outcome["bug"]:
        raise RuntimeError(f"load sandbox of {name}:\n{outcome['bug']}")
    if outcome["reason"]:
        raise (GoldenMismatch if outcome["mismatch"] else ModelLoadError)(outcome["reason"])
    return outcome


def _signal_name(number: int) -> str:
    """The name of a signal; most real-time signals have none, and are counted from SIGRTMIN."""
    try:
        return signal.Signals(number).name
    except ValueError:
        # Only systems with real-time signals have numbers without a name.
        return f"SIGRTMIN{number - signal.SIGRTMIN:+d}"


def _measured(job: Mapping[str, Any]) -> dict[str, Measured]:
    """The choices in a message of the pipe, by the name of their graph."""
    return {
        name: Measured(each["network"], Parallelism(**each["parallelism"]))
        for name, each in job.items()
    }


def main() -> None:
    """Run as the child: load the version and write the result."""
    SupervisedThread(target=_end_with_parent, name="weir-parent", daemon=True).start()
    job = json.loads(sys.argv[1])
    # Other output goes where standard error goes.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Other processes run first, and if memory runs out, this one is killed first.
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    loader = _loader(job)
    result = {key: text[-_MAX_TEXT:] for key, text in _load(job, loader).items()}
    measured = {name: asdict(each) for name, each in loader.measured.items()}
    results.write(json.dumps({**result, "measured": measured}))
    results.flush()
    os._exit(0)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _load(job: dict[str, Any], loader: Loader) -> dict[str, str]:
    """Load the version; reason and kind of a failure, the traceback of a bug, or empty texts."""
    try:
        with _limited_memory(None if _uses_cuda(job) else job["memory_bytes"]):
            loader.load(job["name"], job["version"], Path(job["path"]))
    except (ModelLoadError, MemoryError) as error:
        reason = str(error) or "it needs more memory than there is"
        if job["memory_bytes"] and _is_memory_error(error):
            reason += f" (load_memory_bytes is {job['memory_bytes']})"
        mismatch = "golden" if isinstance(error, GoldenMismatch) else ""
        return {"reason": reason, "mismatch": mismatch, "bug": ""}
    except Exception:  # noqa: BLE001 - the parent logs it
        return {"reason": "", "mismatch": "", "bug": traceback.format_exc()}
    return {"reason": "", "mismatch": "", "bug": ""}


def _uses_cuda(job: dict[str, Any]) -> bool:
    """Whether a graph runs on CUDA, which takes more of the address space than it uses."""
    own = [settings["provider"] for settings in job["settings"].values()]
    return "cuda" in [provider or job["provider"] for provider in own]


def _is_memory_error(error: BaseException | None) -> bool:
    """Whether the error, or a cause of it, is a lack of memory."""
    return error is not None and (
        isinstance(error, (MemoryError, OutOfMemory)) or _is_memory_error(error.__cause__)
    )


def _loader(job: dict[str, Any]) -> Loader:
    settings = {name: ModelSettings(**own) for name, own in job["settings"].items()}
    return Loader(
        provider=job["provider"],
        cores=job["cores"],
        measured=_measured(job["measured"]),
        operator_library=job["operator_library"],
        max_message_bytes=job["max_message_bytes"],
        links=LinkRoots(tuple(map(Path, job["link_roots"]))),
        settings=settings.__getitem__,
        deadlines=Deadlines(time.monotonic),
        metrics=Metrics(CollectorRegistry()),
    )


@contextmanager
def _limited_memory(extra_bytes: int | None) -> Iterator[None]:
    """Limit the address space to what is in use and `extra_bytes` more; on Linux only."""
    if extra_bytes is None or sys.platform != "linux":
        yield
        return
    import resource  # noqa: PLC0415 - on Unix only

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    main()
