"""A real gateway as a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

_STOP_S = 60.0


@contextmanager
def gateway(target: str, *options: str) -> Iterator[str]:
    """The address of a gateway on a free port, which must stop with exit code 0 and no traceback.

    Args:
        target: the servers, as `--target` takes them.
        options: more of the command line.
    """
    with gateway_process(target, *options) as (address, _):
        yield address


@contextmanager
def gateway_process(
    target: str,
    *options: str,
    exit_code: int | None = 0,
    log: Path | None = None,
    limits: Mapping[str, float] | None = None,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a gateway and its process, for a test that signals it or watches its memory.

    Args:
        exit_code: what the process must end with; None for a test that ends it itself.
        log: a new file for its standard error.
        limits: of its connections, as of `limited_gateway`.
    """
    program = ["weir"] if limits is None else ["tests.helpers.limited_gateway", json.dumps(limits)]
    start = [sys.executable, "-m", *program, "gateway", "--target", target, "--port", "0", *options]
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    with log.open("w+b") if log else TemporaryFile() as stderr:
        process = subprocess.Popen(
            start, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("weir: gateway http="), f"no start: {_text(stderr)}"
            yield line.strip().partition("http=")[2], process
            if exit_code is not None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(_STOP_S) == exit_code, _text(stderr)
            assert "Traceback" not in _text(stderr)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _text(stderr: IO[bytes]) -> str:
    stderr.seek(0)
    return stderr.read().decode(errors="backslashreplace")
