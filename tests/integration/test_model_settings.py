"""Settings of single models, and threads and instances without any."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import weir
from tests.helpers import onnx_models
from tests.integration.harness import running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for name in ("plain", "with-mark", "with.dot"):
        onnx_models.write_plain(root, name, onnx_models.affine())
    return root


def test_settings_of_a_model_hold_for_it_alone(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIR_MODELS__WITH_MARK__INSTANCES", "3")
    monkeypatch.setenv("WEIR_MODELS__GONE__INSTANCES", "3")
    flags = ("--model-setting", "with.dot.threads=2", "--model-setting", "with.dot.instances=4")

    with running(repository, tmp_path / "log", *flags) as server:
        with weir.Client(server.target) as client:
            listed = {model.name: model.versions[0] for model in client.models()}
            rows = np.ones((2, 4), np.float32)
            for name in listed:
                np.testing.assert_array_equal(client.infer(name, {"x": rows})["y"], 2 * rows + 1)

        chosen = {name: (each.threads, each.instances) for name, each in listed.items()}
        assert chosen == {"plain": (1, 1), "with-mark": (1, 3), "with.dot": (2, 4)}
        assert server.metric("weir_model_threads", model="with.dot") == 2
        assert server.metric("weir_model_instances", model="with.dot") == 4
        server.wait_for_log("parallelism chosen model=plain version=1 threads=1 instances=1")
        server.wait_for_log(
            "settings for an unknown model model=GONE source=WEIR_MODELS__GONE__INSTANCES "
            "models=plain, with-mark, with.dot"
        )


def test_variable_about_two_models_ends_the_start(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_models.write_plain(repository, "with_mark", onnx_models.affine())
    monkeypatch.setenv("WEIR_MODELS__WITH_MARK__INSTANCES", "3")

    done = subprocess.run(
        [sys.executable, "-m", "weir.server", str(repository), "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert "WEIR_MODELS__WITH_MARK__INSTANCES: expected one model of that name" in done.stderr
    assert "Traceback" not in done.stderr
