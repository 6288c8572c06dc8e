"""Several processes that train one network, started by torchrun, against one process.

The oracle is the loop in one process, which has no process group.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.helpers.process_group_runs import recipes, write_data
from tests.helpers.training import Silent, train
from tests.unit.training.conftest import write_shapes
from weir.training.checkpoint import CHECKPOINT, read_checkpoint
from weir.training.errors import InterruptedRunError
from weir.training.recipes import make_recipe
from weir.training.run_directory import RECORD, DataRecord, EpochRecord, read_record

CPU = torch.device("cpu")
ENDS_WITHIN_S = 240.0
CURVE = 1e-5
"""Sums of float32 in another order differ in the last bits, and steps carry that on."""


@contextmanager
def torchrun(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Two processes on 127.0.0.1."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *where, "--local-addr", "127.0.0.1", "-m", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # It ends its processes first.
            process.terminate()
            process.communicate(timeout=ENDS_WITHIN_S)


def end(process: subprocess.Popen[str]) -> str:
    """Wait for the end; return what all processes printed."""
    printed, _ = process.communicate(timeout=ENDS_WITHIN_S)
    return printed


def require_same_curve(one: list[EpochRecord], other: list[EpochRecord], data: DataRecord) -> None:
    assert len(one) == len(other) > 0
    for epoch, same in zip(one, other, strict=True):
        assert same.loss == pytest.approx(epoch.loss, rel=CURVE, abs=CURVE)
        assert same.validation_loss == pytest.approx(epoch.validation_loss, rel=CURVE, abs=CURVE)
        assert is_near(same.accuracy, epoch.accuracy, data.train_rows)
        assert is_near(same.validation_accuracy, epoch.validation_accuracy, data.validation_rows)
        if same.validation_accuracy == epoch.validation_accuracy:
            assert same.validation_macro_f1 == pytest.approx(epoch.validation_macro_f1)
        assert same.learning_rate == epoch.learning_rate


def is_near(one: float | None, other: float | None, rows: int) -> bool:
    """Whether accuracies differ by one row at most: it may lie between two classes."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= 1.001 / rows


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "shapes")


def test_two_processes_have_the_curve_of_one_by_the_command(shapes: Path, tmp_path: Path) -> None:
    recipe = make_recipe("lenet5", str(shapes), epochs=4, batch_size=9)
    alone = train(recipe, tmp_path / "alone", CPU, Silent(), None)
    settings = ("--epochs", 4, "--batch-size", 9)
    out = tmp_path / "together"

    with torchrun("weir.training", "lenet5", "--data", shapes, "--out", out, *settings) as process:
        printed = end(process)

    assert process.returncode == 0, printed
    together = read_record(out)
    require_same_curve(alone.epochs, together.epochs, alone.data)
    assert together.recipe == recipe
    assert is_near(together.test_accuracy, alone.test_accuracy, alone.data.test_rows)
    assert printed.count("epoch 4/4: loss") == printed.count("test accuracy") == 1
    assert not (out / CHECKPOINT).exists()


def test_every_kind_of_network_has_the_curve_of_one_process(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes")
    write_data(tmp_path)
    made = recipes(tmp_path)
    alone = {
        name: train(recipe, tmp_path / "alone" / name, CPU, Silent(), None)
        for name, recipe in made.items()
    }
    # Two processes resume what one began.
    with pytest.raises(InterruptedRunError):
        train(made["pairs"], tmp_path / "together" / "pairs", CPU, Silent(stop_after=5), None)

    with torchrun("tests.helpers.process_group_runs", tmp_path) as process:
        printed = end(process)

    assert process.returncode == 0, printed
    for name, record in alone.items():
        together = read_record(tmp_path / "together" / name)
        require_same_curve(record.epochs, together.epochs, record.data)


def test_a_stopped_run_is_resumed_by_one_process(shapes: Path, tmp_path: Path) -> None:
    # So many epochs outlast the signal, so no run here is finished.
    recipe = make_recipe("lenet5", str(shapes), epochs=5000, batch_size=9)
    out = tmp_path / "together"
    settings = ("--epochs", 5000, "--batch-size", 9)

    with torchrun("weir.training", "lenet5", "--data", shapes, "--out", out, *settings) as process:
        wait_for(out / CHECKPOINT, process)
        process.send_signal(signal.SIGTERM)
        printed = end(process)

    assert process.returncode != 0
    assert len(re.findall(r"stopped in epoch \d+ after step \d+; to go on", printed)) == 1
    assert "torchrun --nproc-per-node 2 -m weir.training lenet5" in printed
    assert not (out / RECORD).exists()
    before = len(history(out))
    # Two epochs more; none has more than five steps.
    with pytest.raises(InterruptedRunError):
        train(recipe, out, CPU, Silent(stop_after=10), read_checkpoint(out))
    resumed = history(out)
    steps = 5 * len(resumed)
    with pytest.raises(InterruptedRunError):
        train(recipe, tmp_path / "alone", CPU, Silent(stop_after=steps), None)
    alone = history(tmp_path / "alone")[: len(resumed)]
    assert len(resumed) >= before + 2
    for one, other in zip(alone, resumed, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=CURVE, abs=CURVE)
        assert other.learning_rate == one.learning_rate


def history(out: Path) -> list[EpochRecord]:
    """The finished epochs of a stopped run."""
    return read_checkpoint(out).note.progress.history


def test_a_killed_process_ends_the_others(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("--epochs", 5000, "--keep", "last")

    with torchrun("weir.training", "lenet5", "--data", shapes, "--out", out, *settings) as process:
        wait_for(out / CHECKPOINT, process)
        os.kill(workers_of(process)["1"], signal.SIGKILL)
        printed = end(process)

    assert process.returncode != 0
    assert printed.count("weir: another process of this run ended") == 1
    assert "Signal 9" in printed
    assert read_checkpoint(out).note.progress.epoch >= 1


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + ENDS_WITHIN_S
    while not path.exists():
        assert process.poll() is None, end(process)
        assert time.monotonic() < end_s
        time.sleep(0.01)


def workers_of(process: subprocess.Popen[str]) -> dict[str, int]:
    """The processes that torchrun started, by rank."""
    found = {}
    for each in Path("/proc").iterdir():
        try:
            status = (each / "status").read_text()
            if re.search(rf"^PPid:\t{process.pid}$", status, re.MULTILINE):
                names = dict(
                    entry.split("=", 1)
                    for entry in (each / "environ").read_text().split("\0")
                    if "=" in entry
                )
                found[names["RANK"]] = int(each.name)
        except (OSError, KeyError):
            continue
    return found
