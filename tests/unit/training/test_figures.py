"""The figures of a run, for few and for many classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weir.training.figures import draw_confusion_matrix, draw_learning_curve
from weir.training.recipes import make_recipe
from weir.training.run_directory import DataRecord, EpochRecord, ImageRecord, RunRecord


def record(classes: int, epochs: int) -> RunRecord:
    history = [
        EpochRecord(
            epoch=epoch,
            learning_rate=0.1,
            loss=1.0 / epoch,
            accuracy=0.9,
            validation_loss=1.2 / epoch,
            validation_accuracy=0.8,
            seconds=1.0,
        )
        for epoch in range(1, epochs + 1)
    ]
    return RunRecord(
        recipe=make_recipe("lenet5", "mnist"),
        architecture="lenet5",
        task="image-classification",
        data=DataRecord(name="mnist", checksum="0", train_rows=1, validation_rows=1, test_rows=1),
        seed=0,
        classes=[f"class of number {number}" for number in range(classes)],
        image=ImageRecord(height=28, width=28, channels=1, mean=[0.1], std=[0.3]),
        versions={},
        commit=None,
        device="cpu",
        epochs=history,
        best_epoch=1,
        test_accuracy=0.99,
        seconds=1.0,
    )


@pytest.mark.parametrize("classes", [2, 10, 200], ids=str)
@pytest.mark.parametrize("epochs", [1, 50], ids=str)
def test_figures_are_drawn_and_small(tmp_path: Path, classes: int, epochs: int) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (classes, classes))

    draw_learning_curve(record(classes, epochs), tmp_path / "curve.png")
    draw_confusion_matrix(record(classes, epochs), counts, tmp_path / "matrix.png")

    for name in ("curve.png", "matrix.png"):
        assert (tmp_path / name).stat().st_size <= 100_000
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) >= 300 and max(picture.size) <= 1600


def test_names_are_shown_as_they_are_and_never_read_as_formulas(tmp_path: Path) -> None:
    named = record(2, 3)
    named.classes = ["$^$", "名词"]
    named.data.name = "/my/$^$"

    draw_learning_curve(named, tmp_path / "curve.png")
    draw_confusion_matrix(named, np.eye(2, dtype=np.int64), tmp_path / "matrix.png")

    assert (tmp_path / "curve.png").stat().st_size and (tmp_path / "matrix.png").stat().st_size
