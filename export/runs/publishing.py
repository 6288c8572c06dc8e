"""A run directory of `training/`, published: what `weir export RUN` does."""

from pathlib import Path

from weir.bundle.contract import Precision
from weir.export.accuracy import DEFAULT_MAX_DROP
from weir.export.publishing import Published, publish
from weir.export.runs import forecasting, images, text
from weir.export.runs.seq2seq import publish_pair_run
from weir.training.run_directory import read_record


def publish_run(
    run: Path,
    *,
    to: Path,
    name: str | None = None,
    version: int | None = None,
    precision: Precision = "fp32",
    max_accuracy_drop: float = DEFAULT_MAX_DROP,
) -> Published:
    """Publish a trained network, named after its architecture by default.

    Args:
        run: the run directory.
        to: the model repository.
        name: of the model.
        version: the next free one by default.
        precision: `int8` needs the run's data.
        max_accuracy_drop: points that INT8 may cost.

    Raises:
        TrainingError: the run cannot be read, or data that is needed.
        ExportError: see `publish`.
        BundleError: see `publish`.
    """
    record = read_record(run)
    if record.task == "sequence-to-sequence":
        return publish_pair_run(run, record, to=to, name=name, version=version, precision=precision)
    kind = {"image-classification": images, "forecasting": forecasting}.get(record.task, text)
    material = kind.read(run, record)
    return publish(
        material.module,
        material.examples,
        material.spec,
        to=to,
        name=name or record.architecture,
        version=version,
        precision=kind.fitting(run, record, max_accuracy_drop)
        if precision == "int8"
        else precision,
    )
