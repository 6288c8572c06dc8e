"""What a person sees of a run, and how they stop it: a progress bar, a line an epoch, Ctrl-C."""

import signal
import threading
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

from training.progress import Progress

COLUMNS: tuple[ProgressColumn, ...] = (
    TextColumn("epoch {task.fields[epoch]}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}"),
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
    def showing(self, epochs: int, steps: int) -> Iterator[Callable[[Progress], None]]:
        """Show a bar over all steps of the run; gives the function that moves it."""
        with Bar(*COLUMNS, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("", total=epochs * steps, epoch="", loss=0.0, accuracy=0.0)
            printed = -1

            def report(progress: Progress) -> None:
                nonlocal printed
                if progress.step:
                    bar.update(
                        task,
                        completed=progress.epoch * steps + progress.step,
                        epoch=f"{progress.epoch + 1}/{epochs}",
                        loss=progress.loss,
                        accuracy=progress.accuracy,
                    )
                elif progress.epoch != printed:
                    printed = progress.epoch
                    bar.console.print(_line(progress, epochs), highlight=False, soft_wrap=True)

            yield report


def _line(progress: Progress, epochs: int) -> str:
    last = progress.history[-1]
    best = ", best" if progress.best_epoch == last.epoch else ""
    return (
        f"epoch {last.epoch}/{epochs}: loss {last.loss:.4f}, accuracy {last.accuracy:.2%}; "
        f"validation {last.validation_loss:.4f}, {last.validation_accuracy:.2%}{best}"
    )
