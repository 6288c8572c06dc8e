"""`weir evaluate`: the quality of a served model on a test set, compared with training's."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Console
from rich.progress import track

from weir.bundle.number_format import DecimalMark
from weir.cli.error_hints import connect, requires, suggest_models
from weir.cli.options import ServerOptions, Timeout, Version, takes_server
from weir.client import defaults
from weir.client.errors import UsageError, WeirError

if TYPE_CHECKING:
    from weir.bundle.contract import Contract
    from weir.bundle.reader import Bundle
    from weir.client.client import Client
    from weir.client.results import Answer, ModelMetadata
    from weir.evaluate.forecasting import SeriesSet
    from weir.evaluate.seq2seq import PairSet
    from weir.evaluate.test_set import ClassifiedSet, LabelledRequest

    MeasuredSet: TypeAlias = SeriesSet | PairSet

# Rows whose best two classes tie to the last digits may differ.
TOLERANCE = 0.0005
# Dynamic INT8 scales the whole batch, so a row's result depends on the other rows.
DYNAMIC_TOLERANCE = 0.01
_pair_option = partial(typer.Option, rich_help_panel="For pairs, as in their training run")


@takes_server
def evaluate(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="digits, mnist, trec, ewt, multi30k, sunspots, …, or your own folder or file.",
        ),
    ],
    expect: Annotated[
        float | None, typer.Option(min=0, max=1, help="The expected accuracy.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Preprocess as this bundle says, and expect the accuracy it records."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="For CoNLL-U: upos, xpos, deprel or feats:NAME; by default upos."),
    ] = None,
    decimal: Annotated[
        DecimalMark | None,
        typer.Option(help="For series: the decimal mark of a CSV file that leaves it open."),
    ] = None,
    target_data: Annotated[
        Path | None, _pair_option(help="The targets of --data, line by line.")
    ] = None,
    source_language: Annotated[str | None, _pair_option(help="For multi30k: de, en or fr.")] = None,
    target_language: Annotated[str | None, _pair_option(help="For multi30k: de, en or fr.")] = None,
    with_stress: Annotated[
        bool, _pair_option("--with-stress", help="For cmudict-pronounce.")
    ] = False,
    quick: Annotated[
        bool, _pair_option("--quick", help="The run was quick: it tested on short sources.")
    ] = False,
    version: Version = "",
    rows: Annotated[int, typer.Option(min=1, help="Rows per request.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Send a test set to a server and print the quality of its answers.

    The measure is the accuracy; for series RMSE and MASE; for pairs, with greedy search, error
    rates or BLEU.

    Of a file that the bundle was trained on, only the held-out rows are sent; of another file all.

    Exit code 1 if the result differs from --expect, or from training's result on the same rows.
    """
    client = connect(server, timeout)
    read = _read_bundle(bundle) if bundle is not None else None
    is_measured = read is not None and bool(read.contract.series or read.contract.decoding)
    if read is not None and is_measured and expect is not None:
        raise UsageError(f"--expect: {read.contract.task} has no accuracy, got {expect:g}")
    expected = _recorded(read.contract) if read and not is_measured and expect is None else expect
    changes = _pair_settings(target_data, source_language, target_language, with_stress=with_stress)
    if (changes or quick) and not (read and read.contract.decoding):
        raise UsageError(
            "--target-data … --quick: expected --bundle of an encoder-decoder, got another or none"
        )
    with client:
        with suggest_models(client, model):
            metadata = client.metadata(model, version)
        rows = min(rows, client.config(model, version).config.max_batch_size or rows)
        infer = partial(_answers, client, metadata, version=version, concurrency=concurrency)
        if read is not None and is_measured:
            measured = _measured_set(
                data, read, changes, is_quick=quick, rows=rows, decimal=decimal
            )
            _print_origin(measured)
            _compare_scores(measured, list(infer(measured.requests)), read.contract)
            return
        classified = _classified_set(data, metadata, read, column=column, rows=rows)
        _print_origin(classified)
        accuracy = _print_accuracy(infer(classified.requests), metadata, classified.requests)
    if expected is None:
        return
    if classified.is_unseen and expect is None:
        Console(highlight=False).print(f"training had {expected:.4f} on its own test rows")
        return
    cost = read.contract.quantisation if read else None
    is_dynamic = cost is not None and cost.method == "dynamic"
    difference = accuracy - expected
    if abs(difference) > (DYNAMIC_TOLERANCE if is_dynamic else TOLERANCE):
        raise WeirError(f"expected accuracy {expected:.4f}, got {accuracy:.4f} ({difference:+.4f})")
    Console(highlight=False).print(f"as expected: {expected:.4f}")


def _read_bundle(directory: Path) -> "Bundle":
    from weir.bundle.errors import BundleError
    from weir.bundle.reader import read
    from weir.cli.model_directory import find_bundle

    try:
        return read(find_bundle(directory))
    except (BundleError, OSError) as error:
        raise UsageError(f"{directory}: {error}") from error


def _pair_settings(
    target_data: Path | None,
    source_language: str | None,
    target_language: str | None,
    *,
    with_stress: bool,
) -> dict[str, str | bool]:
    """The settings of a pair recipe that were given."""
    settings = {
        "target_data": str(target_data.resolve()) if target_data else None,
        "source_language": source_language,
        "target_language": target_language,
        "stress": with_stress or None,
    }
    return {name: value for name, value in settings.items() if value is not None}


@contextmanager
def _training_errors() -> Iterator[None]:
    """Raise an error of the package `training`, which the block imports, as UsageError."""
    with requires("train"):
        from weir.training.errors import TrainingError

        try:
            yield
        except TrainingError as error:
            raise UsageError(str(error)) from error


def _classified_set(
    data: str, metadata: "ModelMetadata", bundle: "Bundle | None", *, column: str | None, rows: int
) -> "ClassifiedSet":
    """A test set of classes, preprocessed for the model."""
    with _training_errors():
        from weir.evaluate.classification import input_of, of_pictures, of_sequences
        from weir.training.data import load
        from weir.training.recipes import require_conllu

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
        return of_pictures(pictures, name, rows)


def _measured_set(
    data: str,
    bundle: "Bundle",
    changes: "Mapping[str, str | bool]",
    *,
    is_quick: bool,
    rows: int,
    decimal: DecimalMark | None,
) -> "MeasuredSet":
    """The test set of a series or of pairs."""
    with _training_errors():
        from weir.evaluate import forecasting, seq2seq

        if bundle.contract.series is not None:
            return forecasting.hold_out(data, bundle.contract.series, rows, decimal=decimal)
        return seq2seq.hold_out(data, bundle, changes, is_quick=is_quick, rows=rows)


def _print_origin(test_set: "ClassifiedSet | MeasuredSet") -> None:
    count = sum(len(request.targets) for request in test_set.requests)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(f"asking {count:,} rows: {test_set.origin}")


def _compare_scores(test_set: "MeasuredSet", answers: "list[Answer]", contract: "Contract") -> None:
    """Print each score; WeirError if it differs from training's score of the same rows."""
    recorded = contract.training.metrics if contract.training else {}
    tolerance = test_set.tolerance
    console = Console(highlight=False, soft_wrap=True)
    measured = test_set.measure(answers)
    for name, value in measured.items():
        expected = recorded.get(f"test_{name}")
        is_unseen = expected is not None and test_set.is_unseen
        note = f"   training had {expected:.6g} on its own test rows" if is_unseen else ""
        console.print(f"{name} {value:.6g}{note}")
        if expected is None or is_unseen:
            continue
        if abs(value - expected) > tolerance.absolute + tolerance.relative * abs(expected):
            # The bundle does not record whether its run was quick.
            hint = (
                "; --quick goes with runs that had it, and no others" if contract.decoding else ""
            )
            raise WeirError(f"expected {name} {expected:.6g}, got {value:.6g}{hint}")
    if not test_set.is_unseen and any(f"test_{name}" in recorded for name in measured):
        console.print("as expected")


def _recorded(contract: "Contract") -> float | None:
    """The test accuracy that the bundle records; None without a training record."""
    if contract.quantisation is not None:
        return contract.quantisation.after
    if contract.training is None:
        return None
    if "test_accuracy" not in contract.training.metrics:
        raise UsageError(f"{contract.architecture}: the bundle records no test_accuracy")
    return contract.training.metrics["test_accuracy"]


def _answers(
    client: "Client",
    metadata: "ModelMetadata",
    requests: "list[LabelledRequest]",
    *,
    version: str,
    concurrency: int,
) -> Iterator["Answer"]:
    """The answers in order, with `concurrency` requests in flight."""
    pending: deque[Future[Answer]] = deque()
    console = Console(stderr=True)
    for request in track(
        requests, "asking", console=console, transient=True, disable=not console.is_terminal
    ):
        if len(pending) == concurrency:
            yield pending.popleft().result()
        pending.append(client.submit(metadata.name, request.inputs, version=version))
    for future in pending:
        yield future.result()


def _print_accuracy(
    answers: Iterator["Answer"], metadata: "ModelMetadata", requests: "list[LabelledRequest]"
) -> float:
    """Print and return the accuracy, with the throughput."""
    from weir.client.rpc import ranked_output
    from weir.evaluate.classification import count_right

    names = [tensor.name for tensor in metadata.outputs]
    output = "tag_ids" if "tag_ids" in names else ranked_output(metadata)
    began = time.perf_counter()
    right = sum(
        count_right(request, answer[output])
        for request, answer in zip(requests, answers, strict=True)
    )
    elapsed_s = time.perf_counter() - began
    targets = sum(request.target_count for request in requests)
    rows = sum(len(request.targets) for request in requests)
    Console(highlight=False).print(
        f"accuracy {right / targets:.4f} ({right:,} of {targets:,})   "
        f"{rows / elapsed_s:,.0f} rows/s"
    )
    return right / targets
