"""What a person sees of a run, and how they stop it: a progress bar, a line an epoch, Ctrl-C."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

from weir.training.loop import Task
from weir.training.progress import Progress

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


class Watch:
    """One person at one console. The first Ctrl-C (or SIGTERM) asks to stop, a second one insists."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stop = threading.Event()

    def must_stop(self) -> bool:
        """True once somebody asked for it."""
        return self._stop.is_set()

    def ask_to_stop(self) -> None:
        """Stop after the running step."""
        self._stop.set()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as a wish to stop; elsewhere than in the main thread, change nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(_number: int, _frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self.ask_to_stop()

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
        """Show a bar over all steps of the run; gives the function that moves it."""
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
                    bar.console.print(_line(progress, epochs), highlight=False, soft_wrap=True)

            yield report


class Speed:
    """Rows and targets a second, since this sitting's first step of the epoch.

    Args:
        task: says what they are called.
        clock: monotonic seconds.
    """

    def __init__(self, task: Task, clock: Callable[[], float] = time.monotonic) -> None:
        self._task = task
        self._clock = clock
        self._epoch = -1
        self._began_s, self._rows, self._targets = 0.0, 0, 0

    def of(self, progress: Progress) -> str:
        """In words; nothing before the second step."""
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


def _line(progress: Progress, epochs: int) -> str:
    last = progress.history[-1]
    best = ", best" if progress.best_epoch == last.epoch else ""
    right = "" if last.accuracy is None else f", accuracy {last.accuracy:.2%}"
    known = "" if last.validation_accuracy is None else f", {last.validation_accuracy:.2%}"
    return (
        f"epoch {last.epoch}/{epochs}: loss {last.loss:.4f}{right}; "
        f"validation {last.validation_loss:.4f}{known}{best}"
    )
