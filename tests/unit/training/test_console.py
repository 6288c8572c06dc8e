"""The console output of a run."""

from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from weir.training.console import (
    ConsoleMonitor,
    Speed,
    compare_with_baseline,
    propose_class_weights,
    summarise_test,
)
from weir.training.loop import Batch, Progress, Task
from weir.training.recipes import make_recipe
from weir.training.run_directory import DataRecord, RunRecord


def nothing(*_: int) -> Iterator[Batch]:
    return iter(())


def task(targets_are: str | None = None) -> Task:
    return Task(
        steps=2,
        training=nothing,
        validation=nothing,
        loss=lambda logits, _targets: logits,
        rows_are="sentences",
        targets_are=targets_are,
    )


def test_speed_is_measured_from_the_first_step_of_the_epoch() -> None:
    seconds = iter([100.0, 102.0, 104.0])
    speed = Speed(task("tokens"), clock=lambda: next(seconds))

    shown_speeds = [
        speed.of(Progress(epoch=0, step=step, rows=10 * step, targets=5000 * step))
        for step in (1, 2, 3)
    ]

    assert shown_speeds == ["", "5 sentences/s, 2,500 tokens/s", "5 sentences/s, 2,500 tokens/s"]


def test_speed_of_a_resumed_epoch_counts_this_sitting_only() -> None:
    seconds = iter([0.0, 1.0])
    speed = Speed(task(), clock=lambda: next(seconds))

    speed.of(Progress(epoch=3, step=50, rows=5000))

    assert speed.of(Progress(epoch=3, step=51, rows=5100)) == "100 sentences/s"


def test_speed_begins_anew_with_each_epoch() -> None:
    seconds = iter([0.0, 1.0, 60.0, 62.0])
    speed = Speed(task(), clock=lambda: next(seconds))
    speed.of(Progress(epoch=0, step=1, rows=10))
    speed.of(Progress(epoch=0, step=2, rows=20))

    shown_speeds = [speed.of(Progress(epoch=1, step=step, rows=10 * step)) for step in (1, 2)]

    assert shown_speeds == ["", "5 sentences/s"]


def test_speed_survives_a_clock_that_stands_still() -> None:
    speed = Speed(task(), clock=lambda: 1.0)
    speed.of(Progress(epoch=0, step=1, rows=1))

    assert speed.of(Progress(epoch=0, step=2, rows=2)).endswith(" sentences/s")


def test_bar_shows_the_speed_and_each_epoch_is_a_line() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    progress = Progress(step=1, rows=8, targets=40, loss_sum=40.0, right=20)

    with ConsoleMonitor(console).showing(2, task("tokens")) as report:
        report(progress)
        report(progress.model_copy(update={"step": 2, "rows": 16, "targets": 80}))
        progress.close_epoch(0.5, 0.75)
        report(progress)
        report(progress)

    shown = screen.getvalue()
    assert "sentences/s" in shown and "tokens/s" in shown
    assert shown.count("epoch 1/2: loss 1.0000, accuracy 50.00%; validation 0.5000, 75.00%") == 1


def scored(recipe: str, accuracy: float | None, **metrics: float) -> RunRecord:
    made = make_recipe(recipe)
    return RunRecord(
        recipe=made,
        architecture=made.architecture,
        task=made.task,
        data=DataRecord(name="x", checksum="0", train_rows=8, validation_rows=1, test_rows=1),
        seed=0,
        classes=["a", "b"],
        versions={},
        commit=None,
        device="cpu",
        epochs=[],
        best_epoch=1,
        test_accuracy=accuracy,
        test_metrics=metrics,
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("recipe", "baseline"),
    [
        ("lenet5", "most frequent class"),
        ("question", "most frequent class"),
        ("tagger", "most frequent tag"),
    ],
    ids=lambda name: name,
)
def test_an_accuracy_stands_beside_its_baseline(recipe: str, baseline: str) -> None:
    record = scored(recipe, 0.9, macro_f1=0.7, baseline_accuracy=0.4567, baseline_macro_f1=0.1)

    assert summarise_test(record) == f"test accuracy 90.00% ({baseline}: 45.67%), macro F1 70.00%"
    assert compare_with_baseline(record) is None


def test_a_run_of_before_has_no_baseline() -> None:
    record = scored("tagger", 0.9, macro_f1=0.7)

    assert summarise_test(record) == "test accuracy 90.00%, macro F1 70.00%"
    assert compare_with_baseline(record) is None


def test_class_weights_are_proposed_where_rare_classes_are_answered_badly() -> None:
    unequal, equal = scored("question", 0.77, macro_f1=0.26), scored("question", 0.8, macro_f1=0.7)
    weighted = unequal.model_copy(update={"recipe": make_recipe("question", class_weights=1.0)})

    proposed = propose_class_weights(unequal)

    assert proposed is not None and "26.00%" in proposed and "--class-weights 0.25" in proposed
    assert propose_class_weights(equal) is None
    assert propose_class_weights(weighted) is None
    assert propose_class_weights(scored("pronounce", 0.5)) is None
    as_its_baseline = scored("question", 0.47, macro_f1=0.04, baseline_accuracy=0.47)
    assert propose_class_weights(as_its_baseline) is None
    with_letters = unequal.model_copy(update={"test_notes": {"letters": "weir train …"}})
    assert propose_class_weights(with_letters) is None


@pytest.mark.parametrize(
    ("recipe", "accuracy", "metrics", "line"),
    [
        (
            "question",
            0.5,
            {"macro_f1": 0.3, "baseline_accuracy": 0.5, "baseline_macro_f1": 0.1},
            "not better than the baseline: accuracy 50.00%, baseline 50.00%",
        ),
        (
            "lenet5",
            0.4,
            {"macro_f1": 0.1, "baseline_accuracy": 0.5, "baseline_macro_f1": 0.2},
            (
                "not better than the baseline: accuracy 40.00%, baseline 50.00%; "
                "macro F1 10.00%, baseline 20.00%"
            ),
        ),
        (
            "pronounce",
            0.0,
            {"word_error_rate": 1.0, "baseline_word_error_rate": 0.9},
            "not better than the baseline: word error rate 100.00%, baseline 90.00%",
        ),
        (
            "translate",
            0.0,
            {"bleu": 2.04, "baseline_bleu": 3.0},
            "not better than the baseline: BLEU 2.0, baseline 3.0",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) and " " not in each else "",
)
def test_a_run_that_is_not_better_than_its_baseline_says_so(
    recipe: str, accuracy: float, metrics: dict[str, float], line: str
) -> None:
    assert compare_with_baseline(scored(recipe, accuracy, **metrics)) == line
