import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from weir.server.config import Settings
from weir.server.transport.completion_queue import TESTED


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WEIR_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "weir.server", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**inherited, "COLUMNS": "200", "NO_COLOR": "1", **environment},
    )


def test_help_lists_every_setting() -> None:
    done = run("--help")

    assert done.returncode == 0
    assert done.stderr == ""
    for name in Settings.model_fields:
        if name not in ("models_dir", "models"):
            assert f"--{name.replace('_', '-')}" in done.stdout
    assert "--config" in done.stdout
    assert "MODELS" in done.stdout


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    program = (
        "import sys, weir.server.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('onnxruntime', 'grpc', 'numpy')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, timeout=60
    )

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            (),
            "MODELS: expected a model repository, an ONNX file or a bundle, got none",
            id="nothing",
        ),
        pytest.param(
            ("models", "--provider", "tpu"),
            "--provider: expected auto, cpu or cuda, got 'tpu'",
            id="choice",
        ),
        pytest.param(
            ("models", "--threads", "0"),
            "--threads: expected auto or a number from 1 to 1024, got '0'",
            id="out of bounds",
        ),
        pytest.param(
            ("nowhere/models",),
            "MODELS: expected a model repository, an ONNX file or a bundle, "
            "got 'nowhere/models', which does not exist",
            id="no such directory",
        ),
        pytest.param(
            ("models", "--config", "nowhere.toml"),
            "nowhere.toml: No such file or directory",
            id="no such file",
        ),
    ],
)
def test_wrong_setting_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"weir: {message}\n"


def test_wrong_settings_are_a_line_each() -> None:
    done = run("models", "--threads", "0", WEIR_PROT="1")

    assert done.returncode == 2
    assert sorted(done.stderr.splitlines()) == [
        "weir: --threads: expected auto or a number from 1 to 1024, got '0'",
        "weir: WEIR_PROT: no such setting; the nearest is WEIR_PORT",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("models", "--prot", "1"), "No such option: --prot", id="unknown flag"),
        pytest.param(("models", "--port", "x"), "Invalid value for '--port'", id="no number"),
        pytest.param(("models", "more"), "unexpected extra argument", id="too many arguments"),
    ],
)
def test_wrong_command_line_is_explained_with_exit_code_2(
    arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_cuda_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from weir.server.runtime.session import choose_provider  # noqa: PLC0415

    if choose_provider("auto") == "cuda":
        pytest.skip("this machine has CUDA")

    done = run(str(tmp_path), "--provider", "cuda", "--port", "0", "--metrics-port", "0")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("weir: provider cuda: ")
    assert "Traceback" not in done.stderr

    of_a_model = "--model-setting", "mine.provider=cuda"
    done = run(str(tmp_path), *of_a_model, "--port", "0", "--metrics-port", "0")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "weir: --model-setting mine.provider: provider cuda: "
    )


def test_grpcio_that_generated_code_refuses_is_one_line(tmp_path: Path) -> None:
    package = tmp_path / "grpc_health" / "v1"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    # As its generated code does at import.
    (package / "health.py").write_text("raise RuntimeError('depends on grpcio>=99')\n")

    done = run("models", PYTHONPATH=str(tmp_path))

    assert done.returncode == 2
    version = grpc.__version__
    assert done.stderr == (
        "weir: grpcio-health-checking, grpcio-reflection: expected versions that take grpcio "
        f"{version}, got newer ones: pip install '{TESTED}' "
        f"grpcio-health-checking=={version} grpcio-reflection=={version}\n"
    )
