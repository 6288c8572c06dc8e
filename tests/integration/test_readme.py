"""The README's way from a module to an answer: its files and commands, as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.harness import running

README = Path(__file__).parents[2] / "README.md"
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the README's Python files."""
    for text, name in re.findall(
        r"```python\n(# (\w+\.py)\n.*?)```", README.read_text(), re.DOTALL
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def output_of(folder: Path, script: str) -> str:
    run = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def test_module_is_served_as_a_file_and_as_a_bundle(folder: Path) -> None:
    expected = numbers(output_of(folder, "net.py").splitlines()[-1])
    assert len(expected) == 3
    assert output_of(folder, "publish.py").strip() == "models/net/1"

    for path, flags in (("model.onnx", ["--name", "net"]), ("models", [])):
        with running(folder / path, folder / "log", *flags) as server:
            call = (folder / "call.py").read_text().replace("127.0.0.1:8001", server.target)
            (folder / "here.py").write_text(call)

            answer = numbers(output_of(folder, "here.py"))

        assert answer == pytest.approx(expected, abs=1e-4)
