"""Event files of TensorBoard in a run directory: `weir train --log tensorboard`.

    loss/training, loss/validation          by epoch
    accuracy/training, accuracy/validation  if the targets are classes
    macro_f1/validation                     if it chooses the epoch
    rmse/training, rmse/validation          if they are a series, in its unit
    learning_rate                           by epoch, of its last step
    test/*                                  after the test, at the epoch of the kept weights
    hparams                                 the settings of the recipe

Each session of a run writes a file of its own. It begins with a restart marker and all epochs so
far, from the checkpoint: TensorBoard then drops what it read of earlier files, so no point shows
twice. When the run ends, its last file, which is whole, is the only one.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from weir.training.errors import MissingExtra
from weir.training.recipe import Setting
from weir.training.recipes import AnyRecipe
from weir.training.run_directory import EpochRecord, RunRecord

_PATTERN = "events.out.tfevents.*"


class EventFile:
    """The event file of one session of a run; a context manager that closes it."""

    def __init__(
        self, run: Path, recipe: AnyRecipe, history: list[EpochRecord], series_std: float | None
    ) -> None:
        """Open a new file and write the settings and the epochs so far.

        Args:
            series_std: of the series' training part, if the run forecasts one.

        Raises:
            MissingExtra: tensorboard is not installed.
        """
        require_tensorboard()
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        # torch.utils.tensorboard and the writers of tensorboard would import TensorFlow if it is
        # installed, which takes five seconds. The writer of records does not.
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._std = series_std
        # The time of an epoch is the start of the run plus the time it trained.
        self._wall_time = time.time() - sum(epoch.seconds for epoch in history)
        self._path = run / f"events.out.tfevents.{time.time_ns()}.weir"
        self._writer = RecordWriter(self._path.open("xb"))
        self._write(file_version="brain.Event:2")
        self._write(step=0, session_log=SessionLog(status=SessionLog.START))
        settings = dict(_leaves(recipe.model_dump()))
        self._write(step=0, summary=hparams_pb(settings, start_time_secs=self._wall_time))
        for epoch in history:
            self.write_epoch(epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write_epoch(self, epoch: EpochRecord) -> None:
        """Write the scores of an epoch."""
        self._wall_time += epoch.seconds
        scalars = {
            "loss/training": epoch.loss,
            "loss/validation": epoch.validation_loss,
            "learning_rate": epoch.learning_rate,
        }
        if epoch.accuracy is not None and epoch.validation_accuracy is not None:
            scalars["accuracy/training"] = epoch.accuracy
            scalars["accuracy/validation"] = epoch.validation_accuracy
        if epoch.validation_macro_f1 is not None:
            scalars["macro_f1/validation"] = epoch.validation_macro_f1
        if self._std is not None:
            scalars["rmse/training"] = self._std * math.sqrt(epoch.loss)
            scalars["rmse/validation"] = self._std * math.sqrt(epoch.validation_loss)
        self._write_scalars(epoch.epoch, scalars)

    def finish(self, record: RunRecord) -> None:
        """Write the test scores, and delete the files of earlier sessions."""
        accuracy = {} if record.test_accuracy is None else {"accuracy": record.test_accuracy}
        scores = {**accuracy, **record.test_metrics}
        self._write_scalars(
            record.best_epoch, {f"test/{name}": score for name, score in scores.items()}
        )
        for path in self._path.parent.glob(_PATTERN):
            if path != self._path:
                # On Windows a file that TensorBoard reads cannot be deleted.
                with suppress(OSError):
                    path.unlink()

    def _write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step=step, summary=Summary(value=values))

    def _write(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=self._wall_time, **event).SerializeToString())
        self._writer.flush()


def require_tensorboard() -> None:
    """Raise `MissingExtra` if tensorboard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"--log tensorboard: {error.name} is not installed: pip install 'weir[tensorboard]'"
        ) from error


def _leaves(
    settings: Mapping[str, Setting], prefix: str = ""
) -> Iterator[tuple[str, str | float | bool]]:
    """Yield the settings of all groups by their full names; the plugin takes no other values."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            yield f"{prefix}{name}", ", ".join(value)
        elif value is not None:
            yield f"{prefix}{name}", value
