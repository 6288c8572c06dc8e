"""MLPerf's LoadGen: its trials, its verdicts, and the highest rate that it calls valid.

The wheel `mlcommons-loadgen` has an environment of its own. `lib/loadgen_client.py` runs in it.
"""

import json
import os
import pickle
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.lib import loadgen_client, virtual_environments
from benchmarks.lib.loadgen_client import ACCURACY, SUMMARY, Report, Trial

PACKAGE = "mlcommons-loadgen==6.0.17"
_ROOT = Path(__file__).parents[2]
_STEP, _PRECISION = 1.15, 1.04
_LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """LoadGen's summary of a trial, and the client's report.

    Attributes:
        is_valid: LoadGen's word, and no call was refused: LoadGen itself knows no refusals.
        figures: every number of the summary, by its text there.
    """

    is_valid: bool
    figures: dict[str, float]
    report: Report


def install(work: Path) -> Path:
    """The interpreter of LoadGen's environment."""
    return virtual_environments.make(work / "loadgen", [[PACKAGE]])


def run(python: Path, trial: Trial) -> Verdict:
    """Make one trial."""
    with tempfile.TemporaryDirectory() as folder:
        report = _client(python, replace(trial, logs=Path(folder)))
        return verdict((Path(folder) / SUMMARY).read_text(), report)


def answers(python: Path, trial: Trial) -> dict[int, bytes]:
    """Accuracy mode: the answer that LoadGen logged for each sample."""
    with tempfile.TemporaryDirectory() as folder:
        _client(python, replace(trial, logs=Path(folder), is_accuracy=True))
        return logged((Path(folder) / ACCURACY).read_text())


def verdict(summary: str, report: Report) -> Verdict:
    """The verdict in LoadGen's summary."""
    lines = [line.split(":", 1) for line in summary.splitlines() if ":" in line]
    values = {name.strip(): value.strip() for name, value in lines}
    figures = {name: float(text) for name, text in values.items() if re.fullmatch(r"[\d.]+", text)}
    return Verdict(values["Result is"] == "VALID" and not report.refused, figures, report)


def logged(document: str) -> dict[int, bytes]:
    """The answers in LoadGen's accuracy log, by sample."""
    return {each["qsl_idx"]: bytes.fromhex(each["data"]) for each in json.loads(document)}


def highest_valid(is_valid: Callable[[float], bool], start: float, *, is_rough: bool) -> float:
    """The highest rate found valid, 0 if none is above a tenth of `start`.

    Steps of 15 % enclose the bound, then bisection narrows it to 4 %, unless `is_rough`.
    """
    valid, invalid = 0.0, float("inf")
    rate = start
    while not valid or invalid == float("inf"):
        if is_valid(rate):
            valid, rate = rate, rate * _STEP
        else:
            invalid, rate = rate, rate / _STEP
        if not valid and rate < _LEAST_SHARE * start:
            return 0.0
    while not is_rough and invalid / valid > _PRECISION:
        rate = (valid * invalid) ** 0.5
        if is_valid(rate):
            valid = rate
        else:
            invalid = rate
    return valid


def _client(python: Path, trial: Trial) -> Report:
    command = [str(python), "-c", f"from {loadgen_client.__name__} import main; main()"]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        command, input=pickle.dumps(trial), stdout=subprocess.PIPE, check=True, env=environment
    )
    report: Report = pickle.loads(done.stdout)  # noqa: S301 - from our own process
    return report
