from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import main_table
from benchmarks.lib.harness import Run, Target
from benchmarks.main_table import Part

FASTER = Target("calls_per_s", "busy", "weir", "triton", 1.2)


def given(tmp_path: Path) -> Namespace:
    return Namespace(models=tmp_path / "models", runs=tmp_path / "runs", work=tmp_path, quick=True)


def test_each_measured_target_is_a_line() -> None:
    runs = [
        Run("weir", "busy", 0, {"calls_per_s": 15.0}),
        Run("triton", "busy", 0, {"calls_per_s": 10.0}),
    ]
    unmeasured = Target("calls_per_s", "idle", "weir", "triton", 1.2)

    (line,) = main_table.judged(Part("LeNet-5", "lenet.py", (), (FASTER, unmeasured)), runs)

    assert line.question == "LeNet-5: calls_per_s, busy"
    assert (line.servers, line.target, line.verdict) == ("weir / triton", "≥ 1.2", "met")
    assert line.ratio.startswith("1.50")


def test_a_part_that_lacks_something_is_skipped_with_the_reason(tmp_path: Path) -> None:
    part = Part("LeNet-5", "lenet.py", (), (FASTER,), missing="h2load is missing")

    (line,) = main_table.measured(part, given(tmp_path))

    assert line.verdict == "skipped: h2load is missing"


def test_a_script_that_fails_is_a_line_with_its_last_output(tmp_path: Path) -> None:
    part = Part("LeNet-5", "absent.py", (), (FASTER,))

    (line,) = main_table.measured(part, given(tmp_path))

    assert line.verdict.startswith("failed: ")
    assert "absent.py" in line.verdict


def test_without_data_runs_and_bundles_the_parts_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEIR_DATA", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)

    missing = {name: part(given(tmp_path)).missing for name, part in main_table.PARTS.items()}

    assert all(missing.values()), missing
    assert "h2load" in missing["images"]
    assert "WEIR_DATA" in missing["translate"]
    assert "make demo" in missing["loadgen"]
    assert "runs/pronounce" in missing["pronounce"]
