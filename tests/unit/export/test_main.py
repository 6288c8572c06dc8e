import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from weir.bundle.reader import Bundle, read
from weir.export import speed
from weir.export.__main__ import main
from weir.export.runs import images
from weir.export.speed import Speed
from weir.profile import bundle_profile
from weir.training.data import ImageData, Split
from weir.training.images.experiment import load_data, load_model
from weir.training.run_directory import RunRecord


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
        python("-m", "weir.export", run, "--to", tmp_path / "models"),
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
    monkeypatch.setattr(images, "load_model", lambda path: Diverging(load_model(path)))

    assert main([str(run), "--to", str(tmp_path / "models")]) == 3

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("weir: output logits: PyTorch and ONNX Runtime differ by 0.01")
    assert not (tmp_path / "models").exists()


def test_existing_version_is_an_error_of_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "4").mkdir(parents=True)

    assert main([str(run), "--to", str(tmp_path), "--name", "mine", "--version", "4"]) == 1

    error = capsys.readouterr().err
    assert error == f"weir: {tmp_path}/mine/4: this version exists already\n"


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
    assert error.startswith("weir: ") and said in error and error.count("\n") == 1


WEIGHTS_ADVICE = (
    "; weights of a known network: --weights {file} --recipe ... --labels ...; "
    "any torch.nn.Module is published by weir.export.publish"
)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("net.onnx", "; an ONNX file is imported: weir import {file} --to ..."),
        ("net.pt", WEIGHTS_ADVICE),
        ("run.json", ""),
    ],
)
def test_file_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, advice: str
) -> None:
    file = tmp_path / name
    file.write_bytes(b"")

    # The file is wrong whatever else is missing.
    assert main([str(file)]) == 2

    expected = f"weir: {file}: expected a run directory, got a file{advice.format(file=file)}\n"
    assert capsys.readouterr().err == expected


def test_help_leads_to_the_other_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    said = " ".join(capsys.readouterr().out.split())
    assert "published by weir.export.publish in Python, and an ONNX file by `weir import`" in said


def test_int8_is_printed_with_its_accuracy(
    *,
    run: Path,
    run_bundle: Bundle,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reuse_graph(run_bundle.model)

    assert main([str(run), "--to", str(tmp_path), "--precision", "int8"]) == 0

    cost = read(tmp_path / "lenet5" / "1").contract.quantisation
    assert cost is not None
    printed = " ".join(capsys.readouterr().out.split())
    assert f"accuracy FP32 {cost.before:.2%}, INT8 {cost.after:.2%} on 359 test pictures" in printed
    assert "MB, int8" in printed
    assert "INT8 has no limit on it, but on its accuracy" in printed
    assert re.search(r"speed FP32 [\d,]+, INT8 [\d,]+ rows/s, 1 row at a time, one thread", printed)
    assert re.search(r"speed FP32 [\d,]+, INT8 [\d,]+ rows/s, \d+ rows at a time", printed)


@pytest.mark.parametrize(
    ("int8_rows_per_s", "warned"),
    [
        (
            99.0,
            (
                "weir: warning: int8 is slower than fp32 on this machine, in batches of 32; "
                "by default the newest version answers\n"
            ),
        ),
        (101.0, ""),
    ],
    ids=["slower", "faster"],
)
def test_int8_that_is_slower_is_warned_of(
    *,
    run: Path,
    run_bundle: Bundle,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
    int8_rows_per_s: float,
    warned: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = [Speed(1, 10.0, 20.0), Speed(32, 100.0, int8_rows_per_s)]
    monkeypatch.setattr(speed, "compare", lambda *_, **__: measured)
    reuse_graph(run_bundle.model)

    assert main([str(run), "--to", str(tmp_path), "--precision", "int8"]) == 0

    assert capsys.readouterr().err == warned
    assert ("int8 is slower than fp32" in (run / "export.log").read_text()) is bool(warned)


def test_what_is_avoidable_is_printed(
    *,
    run: Path,
    run_bundle: Bundle,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "avoidable: 73% of a run of 32 rows, " + "by a kind with a long explanation " * 5
    monkeypatch.setattr(bundle_profile, "advice", lambda _: [line])
    reuse_graph(run_bundle.model)

    assert main([str(run), "--to", str(tmp_path)]) == 0

    assert f"\n  {line}\n" in capsys.readouterr().out


def test_int8_that_costs_too_much_has_its_own_exit_code(
    *,
    run: Path,
    run_bundle: Bundle,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def black_to_train_on(record: RunRecord, split: Split) -> ImageData:
        data = load_data(record, split)
        return replace(data, images=np.zeros_like(data.images)) if split == "train" else data

    reuse_graph(run_bundle.model)
    monkeypatch.setattr(images, "load_data", black_to_train_on)
    command = [str(run), "--to", str(tmp_path / "models"), "--precision", "int8"]

    assert main(command) == 4
    error = capsys.readouterr().err
    assert error.startswith("weir: int8: accuracy falls from ") and error.count("\n") == 1
    assert not (tmp_path / "models").exists()

    assert main([*command, "--max-accuracy-drop", "100"]) == 0


def test_fp16_is_published_for_cuda(
    run: Path, run_bundle: Bundle, reuse_graph: Callable[[bytes], None], tmp_path: Path
) -> None:
    reuse_graph(run_bundle.model)

    assert main([str(run), "--to", str(tmp_path), "--precision", "fp16"]) == 0

    contract = read(tmp_path / "lenet5" / "1").contract
    assert (contract.precision, contract.providers) == ("fp16", ["cuda"])


def test_wrong_weights_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, labels = tmp_path / "weights.pt", tmp_path / "labels.txt"
    torch.save({"stray": torch.zeros(1)}, weights)
    labels.write_text("a\nb\n")

    source = ["--weights", str(weights), "--recipe", "googlenet", "--labels", str(labels)]
    code = main([*source, "--to", str(tmp_path / "models")])

    (line,) = capsys.readouterr().err.splitlines()
    assert code == 1
    assert line.startswith(f"weir: {weights}: not the weights of googlenet for 2 classes; 287 miss")
    assert line.endswith("; 1 unknown: stray")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["run", "--to", "m", "--version", "0"],
        ["run", "--to", "m", "--wrong"],
        ["run", "--to", "m", "--precision", "fp8"],
        ["run", "--to", "m", "--max-accuracy-drop", "101"],
        ["--to", "m"],
        ["run", "--to", "m", "--weights", "w.pt", "--recipe", "alexnet", "--labels", "l.txt"],
        ["--to", "m", "--weights", "w.pt", "--recipe", "alexnet"],
        [
            *("--to", "m", "--weights", "w.pt", "--recipe", "alexnet", "--labels", "l.txt"),
            *("--precision", "int8"),
        ],
    ],
    ids=[
        *("nothing", "no-target", "version", "option", "precision", "drop"),
        *("no-source", "two-sources", "no-labels", "int8-without-data"),
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments, "weir export") == 2

    assert "Usage: weir export" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], "weir export") == 0

    assert "Usage: weir export" in capsys.readouterr().out
