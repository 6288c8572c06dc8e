import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.export.onnx_import import graphs
from weir.bundle.reader import read
from weir.export.onnx_import.__main__ import main
from weir.export.onnx_import.publishing import default_name


def run(*arguments: object) -> int:
    return main(list(map(str, arguments)))


def test_command_imports_no_torch(tmp_path: Path) -> None:
    graphs.write(tmp_path, graphs.SCALE)
    program = (
        "import sys; from weir.export.onnx_import.__main__ import main; "
        f"code = main([{str(tmp_path / 'net.onnx')!r}, '--to', {str(tmp_path / 'models')!r}]); "
        "print(code, 'torch' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0 False"


def test_summary_says_what_was_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = graphs.write(tmp_path, graphs.ZIP_MAP)

    assert run(file, "--to", tmp_path / "models", "--name", "pets") == 0

    shown = capsys.readouterr().out
    assert f"published {tmp_path}/models/pets/1\n" in shown
    assert "ZipMap is cut off" in shown
    assert "rows alone give what they give in a batch" in shown
    assert "PyTorch" not in shown
    source = read(tmp_path / "models" / "pets" / "1").contract.source
    assert source is not None and source.command == "weir import net.onnx --to models --name pets"


def test_all_options_reach_the_bundle(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.PICTURES)
    (tmp_path / "pets.txt").write_text("\ufeffcat\ndog\nowl\n")
    data = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
    answers = {"inputs/data": data, "outputs/scores": data.mean(axis=(2, 3))}
    np.savez(tmp_path / "golden.npz", **answers)

    code = run(
        file, "--to", tmp_path / "models", "--image", "data", "--mean", "0.5", "--std", "1,1,2",
        "--short-side", 8, "--labels", f"scores={tmp_path / 'pets.txt'}", "--no-softmax",
        "--classes", "scores", "--golden", tmp_path / "golden.npz",
    )  # fmt: skip

    assert code == 0
    bundle = read(tmp_path / "models" / "net" / "1")
    assert bundle.labels("scores") == ["cat", "dog", "owl"]
    preprocessing, parity = bundle.contract.preprocessing, bundle.contract.parity
    assert preprocessing is not None and parity is not None
    assert (preprocessing.short_side, preprocessing.output) == (8, "scores")
    assert parity.against == "golden outputs: golden.npz"


def test_options_specify_sequences_and_ranges(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.MASKED_SUM)

    code = run(
        file, "--to", tmp_path / "models", "--time-axis", "frames=1", "--lengths", "lengths",
        "--max-length", 9, "--padding", "frames=-1", "--range", "frames=-2:2",
    )  # fmt: skip

    assert code == 0
    padded = read(tmp_path / "models" / "net" / "1").contract.padded_axes["time"]
    assert (padded.maximum, padded.padding) == (9, {"frames": -1})


def test_options_specify_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = graphs.write(
        tmp_path,
        "g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1.0, 0.5, 0.25, 1.0}> "
        "{ y = MatMul(x, w) }",
    )
    rows = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)

    code = run(
        file, "--to", tmp_path / "models", "--precision", "int8",
        "--calibration", tmp_path / "rows.npz", "--max-accuracy-drop", 10,
    )  # fmt: skip

    assert code == 0
    assert read(tmp_path / "models" / "net" / "1").contract.precision == "int8"
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"speed FP32 [\d,]+, INT8 [\d,]+ rows/s, 1 row at a time, one thread", printed)
    assert re.search(r"speed FP32 [\d,]+, INT8 [\d,]+ rows/s, 32 rows at a time", printed)


def test_failure_is_one_line_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"hello")

    assert run(file, "--to", tmp_path) == 1

    assert capsys.readouterr().err == f"weir: {file}: expected an ONNX file, got other bytes\n"


def test_failed_check_has_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = graphs.write(tmp_path, graphs.CENTRE)

    assert run(file, "--to", tmp_path / "models", "--batch") == 3

    assert f"weir: {file}: output 'y': row 0 of a batch" in capsys.readouterr().err


def test_mean_of_unscaled_pixels_needs_its_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = graphs.write(tmp_path, graphs.PICTURES)
    pictures = ["--to", tmp_path / "models", "--image", "data", "--mean", "103.53,116.28,123.675"]

    assert run(file, *pictures) == 1

    assert capsys.readouterr().err == (
        f"weir: {file}: mean: expected values of scaled pixels, 0 to 1, got 123.675; "
        "add --scale 1 for values of 0 to 255\n"
    )
    assert run(file, *pictures, "--scale", 1) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "--calibration"),
        (["--mean", "1"], "--image"),
        (["--image", "x", "--mean", "a"], "expected numbers R,G,B, got 'a'"),
        (["--image", "x", "--image-size", "4"], "expected HEIGHTxWIDTH, got '4'"),
        (["--time-axis", "x"], "expected INPUT=VALUE, got 'x'"),
        (["--time-axis", "x=y"], "expected a whole number, got 'y'"),
        (["--range", "x=4"], "expected MIN:MAX, got '4'"),
        (["--range", "x=a:b"], "expected MIN:MAX, got 'a:b'"),
        (["--labels", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--golden", "nowhere.npz"], "nowhere.npz: No such file"),
    ],
)
def test_wrong_usage_says_what_was_expected(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert run(graphs.write(tmp_path, graphs.SCALE), "--to", tmp_path / "m", *arguments) == 2

    assert message in capsys.readouterr().err


def test_archive_without_arrays_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "empty.npz")

    file = graphs.write(tmp_path, graphs.SCALE)
    assert run(file, "--to", tmp_path / "m", "--golden", tmp_path / "empty.npz") == 2

    assert "empty.npz: expected arrays, got none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("nets/resnet50.onnx", "resnet50"),
        ("nets/resnet 50 (v2).onnx", "resnet-50-v2"),
        ("nets/bert/model.onnx", "bert"),
        ("nets/bert/1/model.onnx", "bert"),
        ("nets/größe.onnx", "gr-e"),
    ],
)
def test_name_comes_from_the_file(path: str, name: str) -> None:
    assert default_name(Path("/") / path) == name
