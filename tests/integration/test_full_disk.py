"""A server whose log nobody can take any more."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import onnx_models
from weir import Client

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="the system has no device that is full")


def test_log_on_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    onnx_models.write_plain(tmp_path, "affine", onnx_models.affine())
    command = [
        sys.executable,
        "-m",
        "weir.server",
        str(tmp_path),
        "--port",
        "0",
        "--metrics-port",
        "0",
    ]

    with FULL.open("w") as full:
        server = subprocess.Popen(
            [*command, "--log-level", "debug"], stdout=subprocess.PIPE, stderr=full, text=True
        )
    with server:
        try:
            target = server.stdout.readline().split("grpc=")[1].split()[0] if server.stdout else ""
            with Client(target, timeout_s=30) as client:
                client.wait_ready()
                answers = [
                    client.infer("affine", {"x": np.ones((1, 4), np.float32)}) for _ in range(3)
                ]
        finally:
            server.terminate()

    assert len(answers) == 3
    assert server.returncode == 0
