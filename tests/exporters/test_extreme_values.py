"""No value and no shape of a request ends or hangs the process.

`WEIR_EXTREME_TRIALS` and `WEIR_EXTREME_SEED` look further than the default does.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.exporters.extreme_values import DONE

pytestmark = [pytest.mark.exporters, pytest.mark.timeout(3600)]

TRIALS = int(os.environ.get("WEIR_EXTREME_TRIALS", "12"))
SEED = int(os.environ.get("WEIR_EXTREME_SEED", "1"))
HANG_S = 30.0
"""Of a run; the longest that ends fills the memory limit with one operator."""


def worked(start: int, log: Path) -> tuple[list[object], str]:
    """Run from a position on; the last line, and how the process ended, or empty if it is done."""
    command = [sys.executable, "-m", "tests.exporters.extreme_values", str(SEED), str(TRIALS)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, str(start)], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        last: list[object] = [start, "", "", -1]
        is_hanging = False

        def kill() -> None:
            nonlocal is_hanging
            is_hanging = True
            process.kill()

        while True:
            timer = threading.Timer(HANG_S, kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                break
            last = json.loads(line)
        process.wait()
    if process.returncode == 0 and last[1] == DONE:
        return last, ""
    return last, "hangs" if is_hanging else f"ended with {process.returncode}"


def test_extreme_values_are_answers_or_errors(tmp_path: Path) -> None:
    faults = []
    start, is_done = 0, False
    while not is_done:
        last, fault = worked(start, tmp_path / "stderr")
        is_done = not fault
        if fault:
            faults.append([*last, fault])
            assert isinstance(last[0], int)
            # The rest of this model's trials is left out.
            start = last[0] + 1

    assert faults == []
