"""Tests both transports with the newest grpcio: `python -m tools.newest_grpcio [REQUIREMENT]`.

pip installs it into a folder that Python searches before the environment, so the environment stays
as it is. If the version is outside the tested range, that copy claims to be the version of the
environment: the server then takes the fast transport with it.

Exit code 1 only if a version inside the tested range fails.
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

import grpc

from weir.server.transport.completion_queue import FIRST_TESTED, FIRST_UNTESTED, TESTED

# Calls in every form over both transports, and bundles on a server process over both.
TESTS = ("tests/integration/test_transport.py", "tests/integration/test_classification.py")


def main() -> None:
    """Install, test, and say whether the tested range can be raised."""
    requirement = sys.argv[1] if len(sys.argv) > 1 else "grpcio"
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*pip, "--upgrade", requirement], check=True)
        version = next(each.version for each in distributions(name="grpcio", path=[folder]))
        print(f"newest grpcio: {version}; tested range: {TESTED}", flush=True)
        if not is_tested(version):
            claimed = f'__version__ = """{grpc.__version__}"""\n'
            (Path(folder) / "grpc" / "_grpcio_metadata.py").write_text(claimed, "utf-8")
        pytest = [sys.executable, "-m", "pytest", "--numprocesses", "auto", "--dist", "loadfile"]
        done = subprocess.run(
            [*pytest, "--quiet", *TESTS], env={**os.environ, "PYTHONPATH": folder}, check=False
        )
    passes = done.returncode == 0
    print(f"newest grpcio: {verdict(version, passes=passes)}")
    sys.exit(not passes and is_tested(version))


def is_tested(version: str) -> bool:
    """Whether the fast transport takes a version of grpcio."""
    return FIRST_TESTED <= _minor(version) < FIRST_UNTESTED


def verdict(version: str, *, passes: bool) -> str:
    """What the result says about the tested range."""
    if is_tested(version):
        if passes:
            return f"{version} passes, as the tested range says"
        return f"{version} FAILS inside the tested range: repair the transport, or narrow the range"
    if not passes:
        return f"{version} FAILS outside the tested range: the range cannot be extended to it"
    major, minor = _minor(version)
    if (major, minor) < FIRST_TESTED:
        return f"{version} passes below the tested range"
    return (
        f"{version} passes outside the tested range. Raise FIRST_UNTESTED in "
        f"server/transport/completion_queue.py to ({major}, {minor + 1}), and grpcio in "
        f"pyproject.toml to <{major}.{minor + 1}"
    )


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


if __name__ == "__main__":
    main()
