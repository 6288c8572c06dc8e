"""Labels that were set by call, and a server that is killed."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton

from tests.helpers import onnx_models
from tests.integration.harness import Server, running

NAME = "fingerprint"


def weir(server: Server, *arguments: str) -> str:
    command = [sys.executable, "-m", "weir", *arguments, "--target", server.target]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def answering(server: Server) -> str:
    with triton.InferenceServerClient(server.target) as client:
        rows = triton.InferInput("row", [1, 2], "INT64")
        rows.set_data_from_numpy(np.array([[1, 2]]))
        result = client.infer(NAME, [rows])
    version: str = result.get_response().model_version
    assert result.as_numpy("version").tolist() == [int(version)]
    return version


def publish(models: Path, version: int) -> None:
    onnx_models.write_plain(models, NAME, onnx_models.fingerprint(version), version=version)


@pytest.mark.parametrize("row", ["E17"])
def test_rollback_survives_kill_9(tmp_path: Path, row: str) -> None:
    models = tmp_path / "models"
    publish(models, 1)
    publish(models, 2)

    with running(models, tmp_path / "log", "--model-control", "explicit") as server:
        assert answering(server) == "2"
        told = weir(server, "rollback", NAME)
        assert answering(server) == "1"
        server.kill()
    publish(models, 3)
    with running(models, tmp_path / "log", "--model-control", "poll") as server:
        assert answering(server) == "1"
        assert "Traceback" not in server.log()

    assert f"{NAME}: 2 -> 1 (written to versions.toml)" in told


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
@pytest.mark.parametrize("row", ["E18"])
def test_label_that_cannot_be_written_ends_with_the_server_and_says_so(
    tmp_path: Path, row: str
) -> None:
    models = tmp_path / "models"
    publish(models, 1)
    publish(models, 2)
    (models / NAME / "versions.toml").write_text(
        'policy = "all"\n[labels]\nstable = 2  # since Monday\n'
    )

    with running(models, tmp_path / "log", "--model-control", "explicit") as server:
        unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
        told = weir(server, "models", "label", NAME, "stable=1")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert answering(server) == "1"
        server.kill()
    with running(models, tmp_path / "log", "--model-control", "explicit") as server:
        assert answering(server) == "2"

    reason = "versions.toml cannot be written: File too large"
    assert told == f"{NAME}: stable -> 1 (until the server stops: {reason})\n"
    assert sorted(path.name for path in (models / NAME).iterdir()) == ["1", "2", "versions.toml"]
