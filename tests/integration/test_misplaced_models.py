"""A repository of which nothing is served: the log names what lies there, and what was expected."""

import subprocess
import sys
from pathlib import Path

import pytest
from tritonclient import grpc as triton

from tests.helpers import onnx_models
from tests.integration.harness import Client, running

GRAPH = onnx_models.affine()

REMARKS = {
    "model.onnx": (
        "file ignored name='model.onnx' expected=NAME/VERSION/model.onnx, or one file alone: "
        "`weir serve FILE`"
    ),
    "other.onnx": "file ignored name='other.onnx' expected=NAME/VERSION/model.onnx",
    "net.pt": "file ignored name='net.pt' expected=ONNX: NAME/VERSION/model.onnx",
    "mein netz/1/model.onnx": (
        "directory ignored reason=model name: expected up to 128 letters, digits, '_', '.' or '-', "
        "not starting with '.' or '-', got 'mein netz'"
    ),
    "größe/1/model.onnx": "got 'größe'",
    "flat/model.onnx": (
        "model has no version directory model=flat expected=flat/1/model.onnx got='model.onnx'"
    ),
    "beside/model.onnx": (
        "model file beside the versions ignored model=beside expected=beside/VERSION/model.onnx "
        "got='model.onnx'"
    ),
    "v/v1/model.onnx": (
        "not a version directory model=v name='v1' "
        "expected=a directory named by a number from 1, such as 1"
    ),
    "zero/01/model.onnx": "not a version directory model=zero name='01'",
    "torch/1/model.pt": (
        "version has no ONNX file model=torch version=1 expected=model.onnx got='model.pt'"
    ),
    "plan/1/model.plan": "version has no ONNX file model=plan version=1",
}


def lay(models: Path, name: str) -> None:
    path = models / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(GRAPH)


def health(target: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "weir", "health", "--target", target]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def is_ready(target: str) -> bool:
    with triton.InferenceServerClient(target) as client:
        ready: bool = client.is_server_ready()
        return ready


@pytest.mark.parametrize("row", ["E19"])
def test_each_is_named_once_and_a_server_that_requires_models_is_not_ready(
    tmp_path: Path, row: str
) -> None:
    models = tmp_path / "models"
    for name in REMARKS:
        lay(models, name)
    lay(models, "README.md")
    (models / "beside" / "1").mkdir()
    lay(models, ".git/1/model.onnx")
    flags = ("--require-models", "--model-control", "poll", "--poll-interval-s", "0.05")

    with (
        running(models, tmp_path / "log", *flags, ready=False) as server,
        Client(server.target) as client,
    ):
        server.wait_for_log("server not ready reason=no model is ready")
        assert client.health() == "NOT_SERVING"
        assert not is_ready(server.target)
        assert server.metric("weir_server_ready") == 0
        told = health(server.target)
        lay(models, "good/1/model.onnx")
        (models / "good" / "config.pbtxt").touch()
        client.wait_for_health("SERVING")
        assert is_ready(server.target)
        server.wait_for_metric(1, "weir_server_ready")
        server.wait_for_log("server ready")
        log = server.log()

    assert (told.returncode, told.stdout) == (3, "NOT_SERVING\n")
    assert told.stderr == "weir: no model is ready: see `weir models`\n"
    for remark in REMARKS.values():
        assert log.count(remark) == 1, remark
    assert "README" not in log and ".git" not in log


@pytest.mark.parametrize("requires", [True, False], ids=["require-models", "default"])
def test_empty_repository_is_ready_unless_models_are_required(
    tmp_path: Path, *, requires: bool
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    flags = ("--require-models",) if requires else ()

    with (
        running(models, tmp_path / "log", *flags, ready=False) as server,
        Client(server.target) as client,
    ):
        server.wait_for_log("models loaded ready=0 failed=0")
        client.wait_for_health("NOT_SERVING" if requires else "SERVING")
        told = health(server.target)
        ready = is_ready(server.target)
        server.wait_for_log("repository has no model expected=NAME/VERSION/model.onnx")

    assert ready is not requires
    assert told.returncode == (3 if requires else 0)
    assert told.stderr == ("weir: the server has no model\n" if requires else "")


def test_server_whose_last_model_is_unloaded_is_not_ready(tmp_path: Path) -> None:
    onnx_models.write_plain(tmp_path / "models", "affine", GRAPH)
    flags = ("--require-models", "--model-control", "explicit")

    with (
        running(tmp_path / "models", tmp_path / "log", *flags) as server,
        Client(server.target) as client,
        triton.InferenceServerClient(server.target) as control,
    ):
        control.unload_model("affine")
        client.wait_for_health("NOT_SERVING")
        control.load_model("affine")
        client.wait_for_health("SERVING")
