"""No value and no shape of a request ends or hangs the process.

`WEIR_EXTREME_TRIALS` and `WEIR_EXTREME_SEED` look further than the default does.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.exporters, pytest.mark.timeout(7200)]

TRIALS = os.environ.get("WEIR_EXTREME_TRIALS", "12")
SEED = os.environ.get("WEIR_EXTREME_SEED", "1")


def test_extreme_values_are_answers_or_errors() -> None:
    command = [sys.executable, "-m", "tests.exporters.extreme_values", SEED, TRIALS]

    # Its standard error is full of what ONNX Runtime says of memory that it does not get.
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert json.loads(done.stdout) == []
