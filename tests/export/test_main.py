import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bundle.reader import read
from export import runs
from export.__main__ import main
from training.run import load_model


class Diverging(nn.Module):
    """A network whose graph is wrong."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits + 0.01 if torch.onnx.is_in_onnx_export() else logits


def test_command_publishes_and_summarises(
    run: Path, tmp_path: Path, python: Callable[..., list[str]], environment: dict[str, str]
) -> None:
    result = subprocess.run(
        python("-m", "export", run, "--to", tmp_path / "models"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    path = tmp_path / "models" / "lenet5" / "1"
    assert read(path).contract.architecture == "lenet5"
    assert f"published {path}\n" in result.stdout
    assert "max absolute" in result.stdout and "MB" in result.stdout


def test_closed_gate_has_its_own_exit_code(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runs, "load_model", lambda path: Diverging(load_model(path)))

    assert main([str(run), "--to", str(tmp_path / "models")]) == 3

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: output logits: PyTorch and ONNX Runtime differ by 0.01")
    assert not (tmp_path / "models").exists()


def test_existing_version_is_an_error_of_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "4").mkdir(parents=True)

    assert main([str(run), "--to", str(tmp_path), "--name", "mine", "--version", "4"]) == 1

    error = capsys.readouterr().err
    assert error == f"error: {tmp_path}/mine/4: this version exists already\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}", "--to", "{tmp}/models"], "no finished run here"),
        (["{run}", "--to", "{tmp}/models", "--name", "a/b"], "model name"),
        (["{run}", "--to", "/dev/null/models"], "expected a directory"),
    ],
    ids=["no-run", "name", "repository"],
)
def test_user_errors_are_one_line(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    code = main([argument.format(run=run, tmp=tmp_path) for argument in arguments])

    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["run", "--to", "m", "--version", "0"], ["run", "--to", "m", "--wrong"]],
    ids=["nothing", "no-target", "version", "option"],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments, "weir export") == 2

    assert "Usage: weir export" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], "weir export") == 0

    assert "Usage: weir export" in capsys.readouterr().out
