"""`weir evaluate`: the accuracy of a *served* model, or how far its forecasts are off: training's must come out."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from weir import defaults
from weir.commands.extras import requires
from weir.commands.options import Target, Timeout, Version
from weir.errors import UsageError, WeirError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bundle.contract import Contract
    from bundle.reader import Bundle
    from bundle.series import Series
    from weir.answers import Answer, ModelMetadata
    from weir.client import Client
    from weir.forecasts import HeldOut
    from weir.questions import Question

# Rows whose best two classes tie to the last digits may fall either way.
TOLERANCE = 0.0005
# Dynamic INT8 scales a batch as a whole: with other batch-mates, other rows come out otherwise.
DYNAMIC_TOLERANCE = 0.01
# Of errors of forecasts, relative: PyTorch and ONNX Runtime differ in the last digits of FP32.
ERROR_TOLERANCE = 1e-4


def evaluate(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="digits, mnist, trec, ewt, sunspots, …, or a folder or file of yours.",
        ),
    ],
    expect: Annotated[
        float | None, typer.Option(min=0, max=1, help="The accuracy that should come out.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Prepare the data as this bundle says, and expect what it recorded."),
    ] = None,
    column: Annotated[
        str, typer.Option(help="Of CoNLL-U: upos, xpos, deprel or feats:NAME.")
    ] = "upos",
    version: Version = "",
    rows: Annotated[int, typer.Option(min=1, help="Rows a request.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Send a test set to a server and print the accuracy, or RMSE and MASE of a series.

    Exit code 1 if it is not the expected one.
    """
    with requires("client"):
        from weir.client import Client
    read = _read(bundle) if bundle is not None else None
    series = read.contract.series if read else None
    if series is not None and expect is not None:
        raise UsageError(f"--expect: forecasts have no accuracy, got {expect:g} to expect")
    expected = _recorded(read.contract) if read and series is None and expect is None else expect
    with Client(target, timeout_s=timeout) as client:
        metadata = client.metadata(model, version)
        rows = min(rows, client.config(model, version).config.max_batch_size or rows)
        if read is not None and series is not None:
            held_out = _hold_out(data, series, rows)
            answers = _answers(
                client, metadata, held_out.questions, version=version, concurrency=concurrency
            )
            _judge_forecasts(held_out, [answer[series.output] for answer in answers], read.contract)
            return
        questions = _questions(data, metadata, read, column=column, rows=rows)
        began = time.perf_counter()
        answers = _answers(client, metadata, questions, version=version, concurrency=concurrency)
        right = _count_right(answers, metadata, questions)
        elapsed_s = time.perf_counter() - began
    asked = sum(question.asked for question in questions)
    answered_rows = sum(len(question.answers) for question in questions)
    Console(highlight=False).print(
        f"accuracy {right / asked:.4f} ({right:,} of {asked:,})   "
        f"{answered_rows / elapsed_s:,.0f} rows/s"
    )
    if expected is not None:
        cost = read.contract.quantisation if read else None
        is_dynamic = cost is not None and cost.method == "dynamic"
        _compare(right / asked, expected, DYNAMIC_TOLERANCE if is_dynamic else TOLERANCE)


def _questions(
    data: str, metadata: "ModelMetadata", bundle: "Bundle | None", *, column: str, rows: int
) -> "list[Question]":
    """The test set as requests, in the form the model takes."""
    with requires("train"):
        from training.data import load
        from training.errors import TrainingError
    from weir.questions import input_of, of_pictures, of_sequences

    try:
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


def _hold_out(data: str, series: "Series", rows: int) -> "HeldOut":
    with requires("train"):
        from training.errors import TrainingError
        from weir.forecasts import hold_out

    try:
        return hold_out(data, series, rows)
    except TrainingError as error:
        raise UsageError(str(error)) from error


def _judge_forecasts(
    held_out: "HeldOut", forecasts: "list[NDArray[Any]]", contract: "Contract"
) -> None:
    """Print RMSE and MASE, and hold them against those of training."""
    from weir.forecasts import recorded

    console = Console(highlight=False)
    measured = held_out.measure(forecasts)
    expected = recorded(contract, measured)
    for name, error in measured.items():
        console.print(f"{name} {error:.6g}")
        if name in expected and abs(error - expected[name]) > ERROR_TOLERANCE * expected[name]:
            raise WeirError(f"expected {name} {expected[name]:.6g}, got {error:.6g}")
    if expected:
        console.print("as expected")


def _read(directory: Path) -> "Bundle":
    from bundle.errors import BundleError
    from bundle.reader import read
    from weir.models import find_bundle

    try:
        return read(find_bundle(directory))
    except (BundleError, OSError) as error:
        raise UsageError(f"{directory}: {error}") from error


def _recorded(contract: "Contract") -> float | None:
    """The test accuracy that was measured last; None if the weights were trained elsewhere."""
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
    questions: "list[Question]",
    *,
    version: str,
    concurrency: int,
) -> Iterator["Answer"]:
    """The answers in order, with `concurrency` requests in flight."""
    pending: deque[Future[Answer]] = deque()
    for question in questions:
        if len(pending) == concurrency:
            yield pending.popleft().result()
        pending.append(client.submit(metadata.name, question.inputs, version=version))
    for future in pending:
        yield future.result()


def _count_right(
    answers: Iterator["Answer"], metadata: "ModelMetadata", questions: "list[Question]"
) -> int:
    from weir.questions import count_right
    from weir.wire import ranked_output

    names = [tensor.name for tensor in metadata.outputs]
    output = "tag_ids" if "tag_ids" in names else ranked_output(metadata)
    console = Console(stderr=True)
    shown = track(answers, "asking", total=len(questions), console=console, transient=True)
    return sum(
        count_right(question, answer[output])
        for question, answer in zip(questions, shown, strict=True)
    )


def _compare(accuracy: float, expected: float, tolerance: float) -> None:
    difference = accuracy - expected
    if abs(difference) > tolerance:
        raise WeirError(f"expected accuracy {expected:.4f}, got {accuracy:.4f} ({difference:+.4f})")
    Console(highlight=False).print(f"as expected: {expected:.4f}")
