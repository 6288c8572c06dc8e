"""What the test of the newest grpcio says and how it ends."""

import io
import subprocess
import sys
from contextlib import redirect_stdout
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import grpc
import pytest

from tools import newest_grpcio
from weir.server.transport.completion_queue import FIRST_UNTESTED

INSIDE = f"{FIRST_UNTESTED[0]}.{FIRST_UNTESTED[1] - 1}.3"
OUTSIDE = f"{FIRST_UNTESTED[0]}.{FIRST_UNTESTED[1]}.0"


@pytest.mark.parametrize(
    ("version", "pytest_code", "code", "said"),
    [
        (INSIDE, 0, 0, "passes, as the tested range says"),
        (INSIDE, 1, 1, "FAILS inside the tested range"),
        (OUTSIDE, 1, 0, "the range cannot be extended"),
        (OUTSIDE, 0, 0, f"grpcio in pyproject.toml to <1.{FIRST_UNTESTED[1] + 1}"),
    ],
)
def test_only_a_failure_inside_the_range_fails(
    version: str, pytest_code: int, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = []
    out = io.StringIO()

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        if "pip" in command:
            folder = Path(command[command.index("--target") + 1])
            info = folder / f"grpcio-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: grpcio\nVersion: {version}\n")
            (folder / "grpc").mkdir()
            (folder / "grpc" / "_grpcio_metadata.py").write_text("")
            return subprocess.CompletedProcess(command, 0)
        folder = Path(options["env"]["PYTHONPATH"])
        assert PathDistribution(next(folder.glob("*.dist-info"))).version == version
        claimed.append((folder / "grpc" / "_grpcio_metadata.py").read_text())
        return subprocess.CompletedProcess(command, pytest_code)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["newest_grpcio"])

    with pytest.raises(SystemExit) as ended, redirect_stdout(out):
        newest_grpcio.main()

    assert int(ended.value.code or 0) == code
    assert said in out.getvalue()
    # A version outside the range is tested under the environment's, which the server takes.
    assert claimed == [f'__version__ = """{grpc.__version__}"""\n' if version == OUTSIDE else ""]
