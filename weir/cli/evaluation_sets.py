"""What `weir evaluate` asks: a test set as requests, prepared as a bundle says."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from weir.cli.extras import requires
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.bundle.reader import Bundle
    from weir.client.results import ModelMetadata
    from weir.evaluate.questions import HeldOut, QuestionSet


def read_bundle(directory: Path) -> "Bundle":
    """The bundle meant; UsageError if there is none that can be read."""
    from weir.bundle.errors import BundleError
    from weir.bundle.reader import read
    from weir.cli.model_paths import find_bundle

    try:
        return read(find_bundle(directory))
    except (BundleError, OSError) as error:
        raise UsageError(f"{directory}: {error}") from error


def questions_of(
    data: str, metadata: "ModelMetadata", bundle: "Bundle | None", *, column: str | None, rows: int
) -> "QuestionSet":
    """The test set as requests, in the form the model takes."""
    with requires("train"):
        from weir.training.data import load
        from weir.training.errors import TrainingError
        from weir.training.recipes import require_conllu
    from weir.evaluate.questions import input_of, of_pictures, of_sequences

    try:
        if column is not None:
            require_conllu(data)
        if bundle is not None and bundle.contract.padded_axes:
            return of_sequences(data, bundle, column, rows)
        name = input_of(metadata)
        _, height, width, channels = metadata.inputs[0].shape
        preprocessing = bundle.contract.preprocessing if bundle else None
        short_side = preprocessing.short_side if preprocessing else None
        pictures = load(
            data, "test", height=height, width=width, channels=channels, short_side=short_side
        )
    except TrainingError as error:
        raise UsageError(str(error)) from error
    return of_pictures(pictures, name, rows)


def hold_out(
    data: str,
    bundle: "Bundle",
    changes: "Mapping[str, str | bool]",
    *,
    is_quick: bool,
    rows: int,
) -> "HeldOut":
    """The test set of a series or of pairs."""
    with requires("train"):
        from weir.evaluate import forecasts, pairs
        from weir.training.errors import TrainingError

    try:
        if bundle.contract.series is not None:
            return forecasts.hold_out(data, bundle.contract.series, rows)
        return pairs.hold_out(data, bundle, changes, is_quick=is_quick, rows=rows)
    except TrainingError as error:
        raise UsageError(str(error)) from error


def changes_of(
    target_data: Path | None,
    source_language: str | None,
    target_language: str | None,
    *,
    with_stress: bool,
) -> dict[str, str | bool]:
    """The settings of a recipe for pairs that were given."""
    changes = {
        "target_data": str(target_data.resolve()) if target_data else None,
        "source_language": source_language,
        "target_language": target_language,
        "stress": with_stress or None,
    }
    return {name: value for name, value in changes.items() if value is not None}
