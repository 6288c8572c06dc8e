"""A whole run: options, accuracy, and the run directory."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.sequence_files import write_labelled
from tests.helpers.training import train
from tests.unit.training.conftest import recipe_of_shapes, write_shapes
from weir.training.data import load
from weir.training.distributed import ProcessGroup
from weir.training.errors import DataError, RecipeError, RunError
from weir.training.figures import CONFUSION_MATRIX, LEARNING_CURVE
from weir.training.images.experiment import load_data, load_model, prepare
from weir.training.images.recipes import ImageRecipe
from weir.training.loop import Progress, Task
from weir.training.recipe import Setting
from weir.training.recipes import change_recipe, make_recipe
from weir.training.run_directory import (
    RECORD,
    WEIGHTS,
    ImageRecord,
    RunRecord,
    part_of,
    read_record,
)
from weir.training.text import gradients
from weir.training.text.gradients import GRADIENTS
from weir.training.train import Monitor, TrainingOptions, run_training

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, silent: Callable[..., Monitor]) -> Path:
    """A finished run of the small recipe; its pictures lie beside it."""
    folder = tmp_path_factory.mktemp("finished")
    train(recipe_of_shapes(write_shapes(folder / "shapes")), folder / "run", CPU, silent(), None)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, which the test may change."""
    return shutil.copytree(finished / "run", tmp_path / "finished")


def test_digits_reach_98_percent_on_held_out_rows(
    tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    record = train(make_recipe("lenet5", "digits", epochs=15), tmp_path, CPU, silent(), None)

    assert record.test_accuracy is not None and record.test_accuracy >= 0.98
    assert record.data.train_rows + record.data.validation_rows + record.data.test_rows == 1797
    assert accuracy_by_the_record(tmp_path) == record.test_accuracy


def test_pictures_have_a_baseline_too(run: Path) -> None:
    record = read_record(run)

    # Of 20 pictures of each class four are for the test.
    assert record.test_metrics["baseline_accuracy"] == 0.5
    assert record.test_metrics["baseline_macro_f1"] == pytest.approx(1 / 3)
    assert record.test_metrics["macro_f1"] == pytest.approx(1.0)
    assert "'left'" in record.test_notes["baseline"]


def test_equal_pictures_are_for_training_or_for_validation(
    small_recipe: ImageRecipe, shapes: Path
) -> None:
    for path in sorted(shapes.rglob("*.png")):
        (path.parent / f"{path.stem}-copy.png").write_bytes(path.read_bytes())

    experiment = prepare(small_recipe)

    sides = (experiment.train, experiment.validation, experiment.held_out)
    assert sum(len(set(side.contents())) for side in sides) == 40
    assert experiment.notes["equal rows"].startswith("80 of 80 rows are equal to another row")


def test_pictures_are_weighted_by_class_too(
    small_recipe: ImageRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    recipe = change_recipe(small_recipe, class_weights=1.0, epochs=2)

    record = train(recipe, tmp_path / "run", CPU, silent(), None)

    scores = [epoch.validation_macro_f1 for epoch in record.epochs]
    assert len(scores) == 2 and None not in scores
    assert (tmp_path / "run" / LEARNING_CURVE).stat().st_size


def test_alexnet_learns_the_digits_in_its_small_form(
    tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    record = train(make_recipe("alexnet", "digits"), tmp_path, CPU, silent(), None)

    assert record.test_accuracy is not None and record.test_accuracy >= 0.95
    assert accuracy_by_the_record(tmp_path) == record.test_accuracy


def test_the_record_says_how_pictures_are_brought_to_size(
    small_recipe: ImageRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    cropping = change_recipe(small_recipe, epochs=1, image={"short_side": 30})
    assert isinstance(cropping, ImageRecipe)

    stretched = train(small_recipe, tmp_path / "stretched", CPU, silent(), None)
    cropped = train(cropping, tmp_path / "cropped", CPU, silent(), None)

    assert (part_of(stretched, ImageRecord).resize, part_of(stretched, ImageRecord).short_side) == (
        "stretch",
        None,
    )
    assert (part_of(cropped, ImageRecord).resize, part_of(cropped, ImageRecord).short_side) == (
        "short-side",
        30,
    )
    seen = load_data(cropped, "test").images
    assert not np.array_equal(seen, load_data(stretched, "test").images)
    np.testing.assert_array_equal(seen, prepare(cropping).held_out.images)


def accuracy_by_the_record(run: Path) -> float:
    """Test accuracy from the run directory alone, as the export computes it."""
    record, network = read_record(run), load_model(run)
    data = load_data(record, "test")
    scaled = data.images.astype(np.float32).transpose(0, 3, 1, 2) / 255.0
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (part_of(record, ImageRecord).mean, part_of(record, ImageRecord).std)
    )
    with torch.inference_mode():
        logits = network(torch.from_numpy((scaled - mean) / std))
    return float((logits.argmax(dim=1).numpy() == data.labels).mean())


def test_1998_learns_with_its_own_loss_and_input_range(
    tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    record = train(make_recipe("lenet5-1998", "digits", epochs=6), tmp_path, CPU, silent(), None)

    assert (record.epochs[-1].validation_accuracy or 0.0) > 0.85
    assert (0.0 - part_of(record, ImageRecord).mean[0]) / part_of(record, ImageRecord).std[
        0
    ] == pytest.approx(-0.1)
    assert (1.0 - part_of(record, ImageRecord).mean[0]) / part_of(record, ImageRecord).std[
        0
    ] == pytest.approx(1.175)


def test_a_run_directory_is_complete(run: Path) -> None:
    record = read_record(run)

    assert {path.name for path in run.iterdir()} == {
        WEIGHTS,
        RECORD,
        LEARNING_CURVE,
        CONFUSION_MATRIX,
    }
    assert record.test_accuracy == accuracy_by_the_record(run)
    assert record.classes == ["left", "right"]
    assert record.versions["torch"] == torch.__version__
    assert len(record.epochs) == 3 and record.seconds > 0.0
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
    for name in (LEARNING_CURVE, CONFUSION_MATRIX):
        assert (run / name).stat().st_size <= 100_000
        with Image.open(run / name) as picture:
            assert min(picture.size) >= 300


def test_validation_rows_come_from_training_and_leave_the_test_alone(
    small_recipe: ImageRecipe,
) -> None:
    sets = prepare(small_recipe)

    given = load(small_recipe.data, "train")
    together = sorted(image.tobytes() for image in (*sets.train.images, *sets.validation.images))
    assert together == sorted(image.tobytes() for image in given.images)
    np.testing.assert_array_equal(sets.held_out.images, load(small_recipe.data, "test").images)


def test_normalisation_is_that_of_the_training_rows(small_recipe: ImageRecipe) -> None:
    sets = prepare(small_recipe)

    scaled = sets.train.images / 255.0
    assert sets.normaliser.mean == pytest.approx((scaled.mean(),))
    assert sets.normaliser.std == pytest.approx((scaled.std(),))


def test_a_broken_test_picture_shows_before_training(
    small_recipe: ImageRecipe, shapes: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    for path in shapes.rglob("*.png"):
        path.write_bytes(b"broken")

    with pytest.raises(DataError, match="unreadable"):
        train(small_recipe, tmp_path / "run", CPU, silent(), None)

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (RECORD, b"{", f"{RECORD}: "),
        (RECORD, b'{"format": 2}', f"{RECORD}: format: "),
        (WEIGHTS, b"", f"{WEIGHTS}: not the weights of LeNet5"),
        (WEIGHTS, None, f"{WEIGHTS}: not the weights of LeNet5"),
        (RECORD, None, "no finished run here"),
    ],
    ids=["no json", "other format", "empty weights", "no weights", "no record"],
)
def test_a_broken_run_is_named(run: Path, name: str, content: bytes | None, message: str) -> None:
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)

    with pytest.raises(RunError, match=message):
        load_model(run)


def test_first_process_of_a_machine_prepares_before_the_others(
    shapes: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    """The first one may still have to download the data, which the others must not do too."""
    elsewhere = tmp_path / "elsewhere"

    class First(ProcessGroup):
        def barrier(self) -> None:
            if shapes.exists():
                shapes.rename(elsewhere)

    class Second(ProcessGroup):
        def barrier(self) -> None:
            if elsewhere.exists():
                elsewhere.rename(shapes)

    options = TrainingOptions("lenet5", str(shapes), changes={"epochs": 1})
    run_training(replace(options, out=tmp_path / "first"), silent(), First())
    assert elsewhere.exists()
    run_training(replace(options, out=tmp_path / "second"), silent(), Second(local_rank=1))
    assert shapes.exists()


def test_data_that_changed_since_is_noticed(
    small_recipe: ImageRecipe, shapes: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    once = change_recipe(small_recipe, epochs=1)
    record = train(once, tmp_path / "run", CPU, silent(), None)
    (shapes / "left" / "00.png").unlink()

    with pytest.raises(DataError, match="SHA-256 was"):
        load_data(record, "test")


class Remover:
    """A monitor that removes the data when the training begins."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def must_stop(self) -> bool:
        return False

    @contextmanager
    def showing(self, epochs: int, task: Task) -> Iterator[Callable[[Progress], None]]:
        self.data.unlink()
        yield lambda progress: None


def options_for(data: Path) -> TrainingOptions:
    changes: dict[str, Setting] = {"epochs": 1, "encoder": {"hidden": 4}}
    return TrainingOptions("question", str(data), data.parent / "run", changes=changes)


def test_gradients_are_logged_of_the_data_that_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "STEPS", 3)
    data = write_labelled(tmp_path / "rows.tsv", 20)

    run_training(replace(options_for(data), log_gradients=True), Remover(data))

    assert (tmp_path / "run" / GRADIENTS).stat().st_size > 1000


def test_what_goes_with_a_new_run_is_refused_where_one_is_resumed(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "rows.tsv", 20)
    resumed = replace(options_for(data), resume=True)

    for option, options in (
        ("quick", replace(resumed, quick=True)),
        ("overwrite", replace(resumed, overwrite=True)),
    ):
        with pytest.raises(RecipeError, match=f"--{option} goes with a run that begins, got --res"):
            run_training(options, Remover(data))


def test_what_nothing_heeds_is_refused_of_a_resumed_run_too(tmp_path: Path) -> None:
    """Even if the run began with the same value."""
    data = write_labelled(tmp_path / "rows.tsv", 20)
    options = options_for(data)
    run_training(options, Remover(data))

    with pytest.raises(RecipeError, match="--column goes with CoNLL-U"):
        run_training(
            replace(options, resume=True, changes={**options.changes, "column": "upos"}),
            Remover(data),
        )


def test_gradients_of_a_finished_run_are_refused(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "rows.tsv", 20)
    run_training(options_for(data), Remover(data))

    with pytest.raises(RunError, match="--log-gradients goes with a training, this run is fini"):
        run_training(replace(options_for(data), resume=True, log_gradients=True), Remover(data))
