"""The console output of a run."""

from collections.abc import Iterator
from io import StringIO

from rich.console import Console

from weir.training.console import ConsoleMonitor, Speed
from weir.training.loop import Batch, Progress, Task


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
