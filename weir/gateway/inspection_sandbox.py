"""Inspection sandbox: reads and runs a network in a child process, under limits of time and memory.

A graph or a picture may crash its process, never end, or take all memory. Here it does so in a
child, and the gateway goes on.

Rules:
- One child runs at a time, and a bounded number of callers wait for their turn.
- It has a limit of time and, on Linux, of memory. If memory runs out, it is killed first.
- It ends with the gateway, and if its caller leaves: its standard input ends, whose other end is
  held here.
- It inherits only its pipes; what libraries print there is dropped.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from weir.bundle import graph_nodes, reader
from weir.bundle.errors import BrokenBundle, BundleError
from weir.bundle.escaping import short_list
from weir.bundle.external_data import ResolvedGraph
from weir.client.errors import (
    BY_STATUS,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from weir.gateway.model_files import ModelFiles
from weir.inspection.errors import InspectionError, InvalidPicture

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_MOST_WAITING = 16
# Beside the interpreter and its libraries. A graph is held as its file, as a message, as a message
# with more outputs, as that one's bytes and in the session.
_MEMORY_BYTES, _COPIES = 1 << 30, 6
_NICENESS = 10
_OK, _BUG = "OK", "BUG"
_MAX_TEXT = 500
# What brings a package, by its module.
_EXTRAS = {"onnx": "export", "onnxruntime": "server", "PIL": "server"}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a child does: a view of some files.

    Attributes:
        view: network, kernels or feature-maps.
        outputs: names of the model's outputs, as the server describes them. Files whose graph has
            others are not those that it serves.
    """

    view: str
    files: ModelFiles
    outputs: tuple[str, ...]


class InspectionSandbox:
    """Runs inspections in children, one after the other; used on one event loop."""

    def __init__(self, *, timeout_s: float = _TIMEOUT_S, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = asyncio.Lock()
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the right to call `run`; ResourceExhausted if too many wait."""
        if self._waiting >= _MOST_WAITING:
            raise ResourceExhausted(
                f"the gateway: {self._waiting} inspections of networks wait, the limit is "
                f"{_MOST_WAITING}",
                retry_after_s=1.0,
            )
        self._waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._waiting -= 1

    async def run(self, inspection: Inspection, picture: bytes = b"") -> bytes:
        """The JSON of a view; called in a `turn`.

        Raises:
            CallError: the files or the picture cannot be used, or a limit was reached.
        """
        limit_bytes = self._memory_bytes + _COPIES * inspection.files.size_bytes
        child = await _start()
        try:
            async with asyncio.timeout(self._timeout_s):
                job = _job(inspection, len(picture), limit_bytes)
                result = await _converse(child, job + picture)
                code = await child.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the inspection: expected to end within {self._timeout_s:g} s"
            ) from None
        finally:
            if child.returncode is None:
                child.kill()
                # The caller may have left, and the child must be gone before the next one starts.
                await asyncio.shield(child.wait())
        return _checked(result, code, limit_bytes)


async def _start() -> asyncio.subprocess.Process:
    # The child imports from the same places, so not from the working directory first.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        # The limit is on the address space, of which glibc reserves 64 MiB for each thread.
        "MALLOC_ARENA_MAX": "1",
    }
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "weir.gateway.inspection_sandbox",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            # A signal from the keyboard must not reach it.
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(f"the inspection: no process can be started: {error.strerror}") from error


async def _converse(child: asyncio.subprocess.Process, job: bytes) -> bytes:
    """Send a job, and receive the result; the child's standard input stays open."""
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("the child has no pipes")
    with contextlib.suppress(ConnectionError):
        child.stdin.write(job)
        await child.stdin.drain()
    return await child.stdout.read()


def _job(inspection: Inspection, picture_bytes: int, memory_bytes: int) -> bytes:
    job = {
        **asdict(inspection),
        "files": {
            "directory": str(inspection.files.directory),
            "file": inspection.files.file,
            "graph": inspection.files.graph,
        },
        "picture_bytes": picture_bytes,
        "memory_bytes": memory_bytes,
    }
    return json.dumps(job).encode() + b"\n"


def _checked(result: bytes, code: int, limit_bytes: int) -> bytes:
    """The JSON of a child's result; raises its failure, if it failed."""
    status, _, content = result.partition(b"\n")
    if code < 0:
        with contextlib.suppress(ValueError):
            killed_by = signal.Signals(-code).name
            raise FailedPrecondition(
                f"the inspection: its process was killed by {killed_by}; its memory is limited to "
                f"{limit_bytes} bytes"
            )
    if code != 0 or not status:
        raise FailedPrecondition(f"the inspection: its process ended with exit code {code}")
    if status == _OK.encode():
        return content
    text = content.decode(errors="replace")
    if status == _BUG.encode():
        raise RuntimeError(f"inspection sandbox:\n{text}")
    raise BY_STATUS[status.decode()](text)


def main() -> None:
    """Run as the child: read a job, and write its result."""
    source = sys.stdin.buffer
    job = json.loads(source.readline())
    picture = source.read(job["picture_bytes"])
    threading.Thread(target=_end_with_parent, name="weir-parent", daemon=True).start()
    # Other output goes where standard error goes.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Other processes run first, and if memory runs out, this one is killed first.
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    status, content = _result(job, picture)
    results.write(status.encode() + b"\n" + content)
    results.flush()
    os._exit(0)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _result(job: Mapping[str, Any], picture: bytes) -> tuple[str, bytes]:
    """The status and the JSON of a job, or the status and the text of its failure."""
    try:
        return _OK, json.dumps(_view(job, picture)).encode()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "weir":
            return _BUG, traceback.format_exc().encode()
        extra = _EXTRAS.get(package, "all")
        text = f"{package} is not installed beside the gateway: pip install 'weir[{extra}]'"
        return "UNIMPLEMENTED", text.encode()
    except MemoryError:
        text = f"the inspection needs more than {job['memory_bytes']} bytes of memory"
        return "RESOURCE_EXHAUSTED", text.encode()
    except Exception as error:  # noqa: BLE001 - the parent logs what is none of these
        status = _status(error)
        if status == _BUG:
            return _BUG, traceback.format_exc().encode()
        directory = Path(job["files"]["directory"])
        # Callers must not see where the operator's files are.
        text = str(error).replace(f"{directory.parent.parent}{os.sep}", "")
        return status, text[:_MAX_TEXT].encode()


def _status(error: Exception) -> str:
    """The status of an expected failure."""
    if isinstance(error, InvalidPicture):
        return "INVALID_ARGUMENT"
    if isinstance(error, (BundleError, DecodeError, InspectionError)):
        return "FAILED_PRECONDITION"
    return _BUG


def _view(job: Mapping[str, Any], picture: bytes) -> dict[str, Any]:
    """The view that a job asks for."""
    # Here, so that a package that is missing is an answer.
    from weir.gateway import network_views  # noqa: PLC0415

    _limit_memory(job["memory_bytes"])
    files = job["files"]
    directory = Path(files["directory"])
    if files["file"] is None:
        bundle = reader.read(directory)
        graphs, contract = dict(bundle.graphs), bundle.contract
    else:
        graphs = {"model": reader.read_without_contract(directory, files["file"])}
        contract = None
    if files["graph"] is not None:
        graphs = {files["graph"]: graphs[files["graph"]]}
    if len(graphs) == 1:
        (graph,) = graphs.values()
        _check_outputs(graph, job["outputs"])
    if job["view"] == "network":
        return network_views.network(graphs, contract)
    if job["view"] == "kernels":
        return network_views.kernels(graphs)
    if "model" not in graphs:
        raise InspectionError("the model takes no pictures: it is an encoder and a decoder")
    return network_views.maps(graphs["model"], contract, picture)


def _check_outputs(graph: ResolvedGraph, served: Sequence[str]) -> None:
    outputs = {graph_nodes.text(name) for name in graph_nodes.read(graph.model).graph.outputs()}
    if not outputs.issuperset(served):
        raise BrokenBundle(
            "the gateway's files (--models) are not those that the server serves: expected the "
            f"outputs {short_list(served)}, got {short_list(sorted(outputs))}"
        )


def _limit_memory(extra_bytes: int) -> None:
    """Limit the address space to what is in use and `extra_bytes` more; on Linux only."""
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415 - on Unix only

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra_bytes, hard))


if __name__ == "__main__":
    main()
