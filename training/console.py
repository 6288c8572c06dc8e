"""The console of a run: progress bar, one line per epoch, stop signals, and the final summary."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from weir.training.class_scores import BASELINE
from weir.training.forecasting.evaluation import compare as compare_forecasts
from weir.training.forecasting.evaluation import summarise as summarise_forecasts
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.loop import Progress, Task
from weir.training.recipe import PROPOSED_WEIGHTS
from weir.training.run_directory import RunRecord
from weir.training.seq2seq.evaluation import summarise as summarise_pairs
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.text.proposals import PROPOSAL

FAR_BELOW = 0.15
"""Class weights are proposed if the macro F1 is so far below the accuracy."""

COLUMNS: tuple[ProgressColumn, ...] = (
    TextColumn("epoch {task.fields[epoch]}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("loss {task.fields[loss]:.4f}{task.fields[accuracy]}"),
    TextColumn("{task.fields[speed]}"),
    TimeElapsedColumn(),
    TextColumn("ETA"),
    TimeRemainingColumn(),
)


class ConsoleMonitor:
    """Shows a run on a console and turns Ctrl-C and SIGTERM into a request to stop.

    The first signal requests a stop after the current step; the second interrupts at once.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stop = threading.Event()

    def must_stop(self) -> bool:
        """Return whether a stop is requested."""
        return self._stop.is_set()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while open; outside the main thread, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(_number: int, _frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = {
            number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def showing(self, epochs: int, task: Task) -> Iterator[Callable[[Progress], None]]:
        """Show a progress bar over all steps while open; yields the function that updates it."""
        with Bar(*COLUMNS, console=self._console, disable=not self._console.is_terminal) as bar:
            shown = bar.add_task(
                "", total=epochs * task.steps, epoch="", loss=0.0, accuracy="", speed=""
            )
            speed = Speed(task)
            printed = -1

            def report(progress: Progress) -> None:
                nonlocal printed
                if progress.step:
                    bar.update(
                        shown,
                        completed=progress.epoch * task.steps + progress.step,
                        epoch=f"{progress.epoch + 1}/{epochs}",
                        loss=progress.loss,
                        accuracy=f"  accuracy {progress.accuracy:.2%}" if task.has_classes else "",
                        speed=speed.of(progress),
                    )
                elif progress.epoch != printed:
                    printed = progress.epoch
                    line = _epoch_line(progress, epochs)
                    bar.console.print(line, highlight=False, soft_wrap=True)

            yield report


class Speed:
    """Throughput in rows and targets per second, since this session's first step of the epoch."""

    def __init__(self, task: Task, clock: Callable[[], float] = time.monotonic) -> None:
        self._task = task
        self._clock = clock
        self._epoch = -1
        self._began_s, self._rows, self._targets = 0.0, 0, 0

    def of(self, progress: Progress) -> str:
        """Return the throughput as text; empty before the second step."""
        now = self._clock()
        if progress.epoch != self._epoch:
            self._epoch, self._began_s = progress.epoch, now
            self._rows, self._targets = progress.rows, progress.targets
            return ""
        passed_s = max(now - self._began_s, 1e-9)
        words = f"{(progress.rows - self._rows) / passed_s:,.0f} {self._task.rows_are}/s"
        if self._task.targets_are:
            rate = (progress.targets - self._targets) / passed_s
            words += f", {rate:,.0f} {self._task.targets_are}/s"
        return words


def _epoch_line(progress: Progress, epochs: int) -> str:
    last = progress.history[-1]
    best = ", best" if progress.best_epoch == last.epoch else ""
    accuracy = "" if last.accuracy is None else f", accuracy {last.accuracy:.2%}"
    validation = "" if last.validation_accuracy is None else f", {last.validation_accuracy:.2%}"
    if last.validation_macro_f1 is not None:
        validation += f", macro F1 {last.validation_macro_f1:.2%}"
    return (
        f"epoch {last.epoch}/{epochs}: loss {last.loss:.4f}{accuracy}; "
        f"validation {last.validation_loss:.4f}{validation}{best}"
    )


def print_result(console: Console, record: RunRecord, out: Path) -> None:
    """Print the test result, the size of the test set and the run directory."""
    best = record.epochs[record.best_epoch - 1]
    rows = "pictures" if record.image else "rows"
    on = " on"
    if isinstance(record.recipe, SeriesRecipe):
        # The summary of a series has many lines, of which the last must not seem to end here.
        rows, on = f"forecasts of {record.recipe.horizon} steps", "\n     on"
    validated = (
        f"loss {best.validation_loss:.4f}"
        if best.validation_accuracy is None
        else f"{best.validation_accuracy:.2%}"
    )
    if best.validation_macro_f1 is not None:
        validated += f", macro F1 {best.validation_macro_f1:.2%},"
    if record.series and record.series.trained_share < 1.0:
        # Others are kept, as a note says.
        validated += " of the trained weights"
    # Names of data, classes and columns may contain brackets.
    console.print(
        f"{summarise_test(record)}{on} {record.data.test_rows:,} {rows} "
        f"(validation {validated} in epoch {best.epoch} of {len(record.epochs)}, "
        f"{record.seconds:.1f} s)",
        *(f"{name}: {text}" for name, text in record.test_notes.items()),
        *filter(None, [compare_with_baseline(record), propose_class_weights(record)]),
        f"run: {out}",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def summarise_test(record: RunRecord) -> str:
    """Describe the test result in the measures of the run's task, with the baseline's accuracy."""
    metrics = record.test_metrics
    if record.series and isinstance(record.recipe, SeriesRecipe):
        return summarise_forecasts(metrics, record.series.season, record.recipe.horizon)
    if isinstance(record.recipe, Seq2SeqRecipe):
        return summarise_pairs(metrics, record.recipe)
    if record.test_accuracy is None:
        return "test accuracy not tested"
    baseline = metrics.get(f"{BASELINE}accuracy")
    beside = "" if baseline is None else f" ({baseline_name(record)}: {baseline:.2%})"
    more = "".join(
        f", {name.replace('_', ' ').replace('f1', 'F1')} {value:.2%}"
        for name, value in metrics.items()
        if not name.startswith(BASELINE)
    )
    return f"test accuracy {record.test_accuracy:.2%}{beside}{more}"


def propose_class_weights(record: RunRecord) -> str | None:
    """Propose class weights if rare classes are answered far worse; None if not."""
    macro_f1 = record.test_metrics.get("macro_f1")
    if record.test_accuracy is None or macro_f1 is None:
        return None
    if getattr(record.recipe, "class_weights", 0.0) or record.test_accuracy - macro_f1 < FAR_BELOW:
        return None
    if compare_with_baseline(record) is not None or PROPOSAL in record.test_notes:
        # Then it has learned nothing that weights could balance, or letters come first, whose
        # command has weights too.
        return None
    return (
        f"macro F1 {macro_f1:.2%} is far below the accuracy, so rare classes are answered badly; "
        f"the same command with --class-weights {PROPOSED_WEIGHTS:g} and another --out gives their "
        "rows more weight"
    )


def baseline_name(record: RunRecord) -> str:
    """Name the baseline of a run on classes."""
    return "most frequent tag" if record.task == "tagging" else "most frequent class"


def compare_with_baseline(record: RunRecord) -> str | None:
    """Say in one line that a run is not better than its baseline; None if it is, or has none."""
    metrics = record.test_metrics
    if record.series:
        return compare_forecasts(metrics, record.series.season)
    scores = {"accuracy": record.test_accuracy, **metrics}
    lost = []
    for name, value in scores.items():
        baseline = metrics.get(f"{BASELINE}{name}")
        if value is None or baseline is None:
            continue
        is_error = name.endswith("error_rate")
        if value >= baseline if is_error else value <= baseline:
            measure = name.replace("_", " ").replace("f1", "F1").replace("bleu", "BLEU")
            unit = ".1f" if name == "bleu" else ".2%"
            lost.append(f"{measure} {value:{unit}}, baseline {baseline:{unit}}")
    return f"not better than the baseline: {'; '.join(lost)}" if lost else None
