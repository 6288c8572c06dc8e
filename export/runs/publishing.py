"""Publication of a run directory of `training/`, as `weir export RUN` does it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weir.bundle.contract import Precision
from weir.export.accuracy import DEFAULT_MAX_DROP
from weir.export.publishing import Published, publish
from weir.export.runs import forecasting, images, text
from weir.export.runs.seq2seq import publish_pair_run
from weir.training.run_directory import read_record

LOG = "export.log"


def publish_run(
    run: Path,
    *,
    to: Path,
    name: str | None = None,
    version: int | None = None,
    precision: Precision = "fp32",
    max_accuracy_drop: float = DEFAULT_MAX_DROP,
) -> Published:
    """Publish the network of a run directory; other arguments and errors are those of `publish`.

    Args:
        name: of the model; by default its architecture.
        precision: `int8` needs the run's data, else TrainingError.
        max_accuracy_drop: the accuracy that INT8 may cost, in percentage points.
    """
    record = read_record(run)
    with _logged(run):
        if record.task == "sequence-to-sequence":
            return publish_pair_run(
                run, record, to=to, name=name, version=version, precision=precision
            )
        kind = {"image-classification": images, "forecasting": forecasting}.get(record.task, text)
        loaded = kind.load(run, record)
        return publish(
            loaded.module,
            loaded.examples,
            loaded.spec,
            to=to,
            name=name or record.architecture,
            version=version,
            precision=kind.int8_settings(run, record, max_accuracy_drop)
            if precision == "int8"
            else precision,
        )


@contextmanager
def _logged(run: Path) -> Iterator[None]:
    """Write what export and torch's exporter log into the run directory, if it can be written."""
    export_logger = logging.getLogger("weir.export")
    handler: logging.Handler
    try:
        handler = logging.FileHandler(run / LOG, mode="w", encoding="utf-8")
    except OSError:
        handler = logging.NullHandler()
    level = export_logger.level
    export_logger.addHandler(handler)
    export_logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        export_logger.setLevel(level)
        export_logger.removeHandler(handler)
        handler.close()
