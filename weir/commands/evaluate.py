"""`weir evaluate`: the accuracy of a *served* model, which must equal training's."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from weir import defaults
from weir.commands.extras import requires
from weir.commands.options import Target, Timeout, Version
from weir.errors import UsageError, WeirError

if TYPE_CHECKING:
    from bundle.contract import Contract
    from training.data import ImageData
    from weir.answers import Answer, ModelMetadata
    from weir.client import Client

# Rows whose best two classes tie to the last digits may fall either way.
TOLERANCE = 0.0005


def evaluate(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    data: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="digits, mnist, …, or a folder of images.")
    ],
    expect: Annotated[
        float | None, typer.Option(min=0, max=1, help="The accuracy that should come out.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Prepare pictures as this bundle says, and expect what it recorded."),
    ] = None,
    version: Version = "",
    rows: Annotated[int, typer.Option(min=1, help="Images a request.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Classify a test set on a server and print the accuracy.

    Exit code 1 if it is not the expected one.
    """
    with requires("client"):
        from weir.client import Client
    contract = _contract(bundle) if bundle is not None else None
    expected = _recorded(contract) if contract and expect is None else expect
    preprocessing = contract.preprocessing if contract else None
    short_side = preprocessing.short_side if preprocessing else None
    with Client(target, timeout_s=timeout) as client:
        metadata = client.metadata(model, version)
        test_set = _load(data, metadata, short_side)
        rows = min(rows, client.config(model, version).config.max_batch_size or rows)
        began = time.perf_counter()
        answers = _answers(
            client, metadata, test_set, version=version, rows=rows, concurrency=concurrency
        )
        correct = _count_correct(answers, metadata, test_set, rows)
        elapsed_s = time.perf_counter() - began
    count = len(test_set.labels)
    accuracy = correct / count
    Console(highlight=False).print(
        f"accuracy {accuracy:.4f} ({correct:,} of {count:,})   {count / elapsed_s:,.0f} rows/s"
    )
    if expected is not None:
        _compare(accuracy, expected)


def _load(data: str, metadata: "ModelMetadata", short_side: int | None) -> "ImageData":
    """The test set in the size the model takes."""
    shapes = [tensor.shape for tensor in metadata.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or -1 in shapes[0][1:]:
        raise UsageError(
            f"{metadata.name}: expected one input [batch, height, width, channels], got {shapes}"
        )
    with requires("train"):
        from training.data import load
        from training.errors import TrainingError
    _, height, width, channels = shapes[0]
    try:
        return load(
            data, "test", height=height, width=width, channels=channels, short_side=short_side
        )
    except TrainingError as error:
        raise UsageError(str(error)) from error


def _contract(directory: Path) -> "Contract":
    from bundle.errors import BundleError
    from bundle.reader import read
    from weir.models import find_bundle

    try:
        return read(find_bundle(directory)).contract
    except (BundleError, OSError) as error:
        raise UsageError(f"{directory}: {error}") from error


def _recorded(contract: "Contract") -> float | None:
    """The test accuracy that training measured; None if the weights were trained elsewhere."""
    if contract.training is None:
        return None
    if "test_accuracy" not in contract.training.metrics:
        raise UsageError(f"{contract.architecture}: the bundle records no test_accuracy")
    return contract.training.metrics["test_accuracy"]


def _answers(
    client: "Client",
    metadata: "ModelMetadata",
    test_set: "ImageData",
    *,
    version: str,
    rows: int,
    concurrency: int,
) -> Iterator["Answer"]:
    """The answers to all images in order, with `concurrency` requests in flight."""
    name = metadata.inputs[0].name
    pending: deque[Future[Answer]] = deque()
    for start in range(0, len(test_set.images), rows):
        if len(pending) == concurrency:
            yield pending.popleft().result()
        inputs = {name: test_set.images[start : start + rows]}
        pending.append(client.submit(metadata.name, inputs, version=version))
    for future in pending:
        yield future.result()


def _count_correct(
    answers: Iterator["Answer"], metadata: "ModelMetadata", test_set: "ImageData", rows: int
) -> int:
    from weir.wire import ranked_output

    output = ranked_output(metadata)
    labels = test_set.labels
    correct = start = 0
    batches = -(-len(labels) // rows)
    console = Console(stderr=True)
    for answer in track(answers, "classifying", total=batches, console=console, transient=True):
        chosen = answer[output].argmax(axis=-1)
        correct += int((chosen == labels[start : start + len(chosen)]).sum())
        start += len(chosen)
    return correct


def _compare(accuracy: float, expected: float) -> None:
    difference = accuracy - expected
    if abs(difference) > TOLERANCE:
        raise WeirError(f"expected accuracy {expected:.4f}, got {accuracy:.4f} ({difference:+.4f})")
    Console(highlight=False).print(f"as expected: {expected:.4f}")
