"""Event files of TensorBoard, read by TensorBoard's own reader."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from weir.training.__main__ import main
from weir.training.checkpoint import CHECKPOINT, read_checkpoint
from weir.training.errors import InterruptedRunError
from weir.training.images.recipes import ImageRecipe
from weir.training.run_directory import read_record
from weir.training.train import Monitor, prepare, train_experiment

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard's reader imports TensorFlow where that is installed, which takes seconds."""
    monkeypatch.setitem(
        sys.modules, "tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf")
    )


def read_events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run)).Reload()


def curve(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_resumed_run_has_each_epoch_once_with_the_values_of_its_record(
    small_recipe: ImageRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    run = tmp_path / "run"
    experiment = prepare(small_recipe)
    with pytest.raises(InterruptedRunError):
        train_experiment(experiment, run, CPU, silent(6), None, log="tensorboard")
    interrupted = read_events(run)
    resumed = read_checkpoint(run)
    steps = resumed.note.progress.step
    assert resumed.note.progress.epoch == 1 and steps > 0

    record = train_experiment(experiment, run, CPU, silent(), resumed, log="tensorboard")

    events = read_events(run)
    assert [step for step, _ in curve(interrupted, "loss/validation")] == [1]
    expected = {
        "loss/training": [epoch.loss for epoch in record.epochs],
        "loss/validation": [epoch.validation_loss for epoch in record.epochs],
        "accuracy/training": [epoch.accuracy for epoch in record.epochs],
        "accuracy/validation": [epoch.validation_accuracy for epoch in record.epochs],
        "learning_rate": [epoch.learning_rate for epoch in record.epochs],
    }
    for tag, values in expected.items():
        assert [step for step, _ in curve(events, tag)] == [1, 2, 3], tag
        assert [value for _, value in curve(events, tag)] == pytest.approx(values), tag
    times = [event.wall_time for event in events.Scalars("loss/training")]
    assert times == sorted(times)
    (test,) = curve(events, "test/accuracy")
    assert test[0] == record.best_epoch and test[1] == pytest.approx(record.test_accuracy)
    assert len(list(run.glob("events.out.tfevents.*"))) == 1


def test_a_session_that_was_killed_after_an_epoch_leaves_no_second_point(
    small_recipe: ImageRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    experiment = prepare(small_recipe)
    with pytest.raises(InterruptedRunError):
        train_experiment(experiment, tmp_path, CPU, silent(6), None, log="tensorboard")
    earlier = (tmp_path / CHECKPOINT).read_bytes()

    for _ in range(2):
        # The checkpoint of before: a killed session has written its events and no checkpoint.
        (tmp_path / CHECKPOINT).write_bytes(earlier)
        resumed = read_checkpoint(tmp_path)
        with pytest.raises(InterruptedRunError):
            train_experiment(experiment, tmp_path, CPU, silent(4), resumed, log="tensorboard")

    assert [step for step, _ in curve(read_events(tmp_path), "loss/training")] == [1, 2]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 3


def test_the_settings_are_hparams(shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    args = ["--data", str(shapes), "--out", str(run), "--epochs", "1", "--log", "tensorboard"]
    assert main(["lenet5", *args]) == 0

    metadata = read_events(run).SummaryMetadata("_hparams_/session_start_info")
    content = HParamsPluginData.FromString(metadata.plugin_data.content)
    settings = content.session_start_info.hparams
    recipe = read_record(run).recipe
    assert settings["optimizer.learning_rate"].number_value == recipe.optimizer.learning_rate
    assert settings["epochs"].number_value == 1
    assert settings["data"].string_value == str(shapes)


def test_macro_f1_is_a_curve_where_it_chooses_the_epoch(shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    args = ["--data", str(shapes), "--out", str(run), "--epochs", "2", "--class-weights", "0.5"]
    assert main(["lenet5", *args, "--log", "tensorboard"]) == 0

    expected = [epoch.validation_macro_f1 for epoch in read_record(run).epochs]
    scores = [score for _, score in curve(read_events(run), "macro_f1/validation")]
    assert len(scores) == 2 and scores == pytest.approx(expected)


def test_a_series_has_its_error_in_its_own_unit(tmp_path: Path) -> None:
    data, run = tmp_path / "sales.csv", tmp_path / "run"
    rows = "".join(f"{month},{100 + month % 12}\n" for month in range(300))
    data.write_text(f"month,sales\n{rows}")

    args = ["--data", str(data), "--value", "sales", "--quick", "--epochs", "2", "--lags", "12"]
    assert main(["ar", *args, "--out", str(run), "--log", "tensorboard"]) == 0

    record = read_record(run)
    assert record.series is not None
    expected = [record.series.std[0] * epoch.validation_loss**0.5 for epoch in record.epochs]
    errors = [value for _, value in curve(read_events(run), "rmse/validation")]
    assert errors == pytest.approx(expected)


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    code = main(["lenet5", "--out", str(tmp_path / "run"), "--log", "tensorboard"])

    assert code == 2
    assert capsys.readouterr().err == (
        "weir: --log tensorboard: tensorboard is not installed: pip install 'weir[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_finished_run_writes_no_events(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["lenet5", "--data", str(shapes), "--out", str(tmp_path / "run"), "--epochs", "1"]
    assert main(args) == 0

    assert main([*args, "--resume", "--log", "tensorboard"]) == 2

    assert "--log goes with a training, this run is finished" in capsys.readouterr().err
