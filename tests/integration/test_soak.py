"""A short soak: see `make soak` for one of minutes or hours.

Nothing here depends on speed: the clients may be late, as the machine does other things.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.controls import run_controls
from tests.soak.planted import BUGS

SEED = 17

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")


def test_faults_of_a_minute_lose_nothing_and_spoil_no_answer(tmp_path: Path) -> None:
    report = tmp_path / "soak.md"
    options = {
        "--minutes": "1",
        "--seed": SEED,
        "--rate": "100",
        "--planted": "none",
        # The machine does other things too: a server may take half a minute to be back.
        "--deadline-s": "60",
        "--late-s": "20",
        "--max-lag-ms": "20000",
        "--report": report,
        "--folder": tmp_path,
    }
    flags = [str(part) for option in options.items() for part in option]

    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *flags],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "0 wrong, 0 lost" in report.read_text()


def test_each_planted_bug_is_caught(tmp_path: Path) -> None:
    found = run_controls(list(BUGS), SEED, tmp_path)

    missed = {control.bug: control.other for control in found if not control.is_caught}
    assert missed == {}
