"""Optimised graphs, kept from one start of the server to the next.

    <cache-dir>/<key>/graph.onnx      the graph as ONNX Runtime left it
    <cache-dir>/<key>/graph.sha256    of that file

Rules:

- The key is a hash of all that the result depends on: the graph, the runtime, the provider, and the
  processor, since ONNX Runtime lays weights out for the vectors it finds. Nothing is ever updated.
- An entry appears by a rename, whole or not at all; of two servers that write one, the last stays.
- What is damaged, or cannot be read or written, costs a warning and the time it would have saved.
- Who may write here may change what is served: the directory is to be as private as the models.
"""

import hashlib
import json
import logging
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundle import external_data
from bundle.errors import BrokenBundle

logger = logging.getLogger(__name__)

_GRAPH, _HASH = "graph.onnx", "graph.sha256"
_PROCESSOR_FIELDS = ("model name", "flags", "Features", "CPU part")


def key(graph_sha256: str, *circumstances: str) -> str:
    """The name of an entry: a hash of the graph's, of this processor and of whatever else counts."""
    parts = [graph_sha256, platform.machine(), _processor(), *circumstances]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GraphCache:
    """A directory of entries; it is made when the first one is written."""

    directory: Path

    def read(self, entry: str) -> bytes | None:
        """A kept graph, None if there is none or it cannot be trusted."""
        directory = self.directory / entry
        try:
            graph = (directory / _GRAPH).read_bytes()
            expected = (directory / _HASH).read_text("ascii").strip()
        except FileNotFoundError:
            if directory.is_dir():
                _warn("read", entry, "it is not complete")
            return None
        except (OSError, UnicodeDecodeError) as error:
            _warn("read", entry, str(error))
            return None
        if hashlib.sha256(graph).hexdigest() != expected:
            _warn("read", entry, "its SHA-256 is another")
            return None
        try:
            external_data.refuse(graph, _GRAPH)
        except BrokenBundle as error:
            _warn("read", entry, str(error))
            return None
        return graph

    @contextmanager
    def writing(self, entry: str) -> Iterator[Path | None]:
        """Where to write a graph that is then kept as `entry`; None where nothing can be written.

        Nothing is kept of a body that raises, or that writes nothing.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            hidden = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.directory))
        except OSError as error:
            _warn("written", entry, str(error))
            yield None
            return
        try:
            yield hidden / _GRAPH
            _keep(hidden, self.directory / entry)
        except OSError as error:
            _warn("written", entry, str(error))
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _keep(hidden: Path, target: Path) -> None:
    if not (hidden / _GRAPH).exists():
        return
    digest = hashlib.sha256((hidden / _GRAPH).read_bytes()).hexdigest()
    (hidden / _HASH).write_text(f"{digest}\n", "ascii")
    # Whoever comes here found no entry, or one that is no good.
    shutil.rmtree(target, ignore_errors=True)
    hidden.rename(target)


def _warn(what: str, entry: str, reason: str) -> None:
    logger.warning("cached graph cannot be %s entry=%s reason=%s", what, entry[:12], reason)


def _processor() -> str:
    """What the processor is and can, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    found = {line for line in lines if line.partition(":")[0].strip() in _PROCESSOR_FIELDS}
    return "\n".join(sorted(found))
