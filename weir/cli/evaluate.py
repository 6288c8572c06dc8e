"""`weir evaluate`: the quality of a served model on a test set, compared with training's."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

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
    from weir.evaluate.class_scores import ClassScores
    from weir.evaluate.forecasting import SeriesSet
    from weir.evaluate.model_description import ModelDescription
    from weir.evaluate.seq2seq import PairSet
    from weir.evaluate.test_set import (
        ClassifiedSet,
        LabelledRequest,
        Origin,
        Recorded,
        TextRequest,
    )
    from weir.protocol.model_config_pb2 import ModelConfig

    MeasuredSet: TypeAlias = SeriesSet | PairSet
    TextAnswer: TypeAlias = list[list[str]]

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
        typer.Option(
            help="Take from this bundle what the server does not say: preprocessing, labels, and "
            "the accuracy of training."
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="For CoNLL-U: upos, xpos, deprel or feats:NAME; by default that of the training. "
            "For a series: the column to compare with, if it has another name than in training."
        ),
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

    Of a file that training divided, only the rows that it held out are sent; of another file all.

    Exit code 1 if the result differs from --expect, or from training's result on the same rows.
    """
    client = connect(server, timeout)
    read = _read_bundle(bundle) if bundle is not None else None
    changes = _pair_settings(target_data, source_language, target_language, with_stress=with_stress)
    with client:
        with suggest_models(client, model):
            metadata = client.metadata(model, version)
        config = client.config(model, version).config
        described = describe(read, config)
        contract = described.contract
        rows = min(rows, config.max_batch_size or rows)
        ask = partial(
            _answers,
            client,
            metadata,
            task=described.task,
            version=version,
            concurrency=concurrency,
        )
        if (changes or quick) and not (contract and contract.decoding):
            raise UsageError(
                "--target-data … --quick: expected an encoder-decoder, or --bundle of one, "
                "got another model"
            )
        if contract and (contract.series or contract.decoding):
            if expect is not None:
                raise UsageError(f"--expect: {contract.task} has no accuracy, got {expect:g}")
            measured = _measured_set(
                data, described, changes, column, is_quick=quick, rows=rows, decimal=decimal
            )
            _print_origin(measured)
            _compare_scores(measured, list(ask(measured.requests)), contract)
            return
        classified = _classified_set(data, metadata, described, column=column, rows=rows)
        _print_origin(classified)
        began = time.perf_counter()
        answers = list(ask(classified.requests))
        elapsed_s = time.perf_counter() - began
    scores = _score(answers, metadata, classified)
    _print_scores(scores, classified, contract, elapsed_s)
    _compare_accuracy(scores.accuracy, expect, classified.origin, contract)


def describe(bundle: "Bundle | None", config: "ModelConfig") -> "ModelDescription":
    """The model as its bundle describes it, or as its server does."""
    from weir.evaluate import model_description

    if bundle is not None:
        return model_description.of_bundle(bundle)
    return model_description.of_config(config)


def _compare_accuracy(
    accuracy: float, expect: float | None, origin: "Origin", contract: "Contract | None"
) -> None:
    """Compare with --expect, or with training's accuracy on the same rows; WeirError if it differs.

    Of other rows, say what training measured on its own.
    """
    console = Console(highlight=False, soft_wrap=True)
    recorded = _recorded(contract, origin.recorded or "test") if contract else None
    expected = expect
    if expect is None and origin.recorded is not None:
        expected = recorded
    if expected is None:
        if recorded is not None:
            console.print(f"training had {recorded:.4f} on its own test rows")
        if origin.remark:
            console.print(origin.remark)
        return
    cost = contract.quantisation if contract else None
    is_dynamic = cost is not None and cost.method == "dynamic"
    difference = accuracy - expected
    if abs(difference) > (DYNAMIC_TOLERANCE if is_dynamic else TOLERANCE):
        hint = _version_hint(contract) if expect is None else ""
        raise WeirError(
            f"expected accuracy {expected:.4f}, got {accuracy:.4f} ({difference:+.4f}){hint}"
        )
    console.print(f"as expected: {expected:.4f}")


def _version_hint(contract: "Contract | None") -> str:
    """Why an earlier version may have measured other rows."""
    training = contract.training if contract else None
    if training is None or training.split_checksums is not None:
        return ""
    return "; the bundle is of an earlier version, which divided a file with equal rows otherwise"


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
    data: str,
    metadata: "ModelMetadata",
    description: "ModelDescription",
    *,
    column: str | None,
    rows: int,
) -> "ClassifiedSet":
    """A test set of classes, preprocessed for the model."""
    with _training_errors():
        from weir.evaluate.classification import of_frames, of_pictures, of_texts
        from weir.training.recipes import require_conllu

        if column is not None:
            require_conllu(data)
        contract = description.contract
        if contract is None or not contract.padded_axes:
            return of_pictures(data, metadata, description, rows)
        if contract.vocabularies or contract.tokenisation:
            return of_texts(data, description, column, rows)
        return of_frames(data, description, rows)


def _measured_set(
    data: str,
    description: "ModelDescription",
    changes: "Mapping[str, str | bool]",
    column: str | None,
    *,
    is_quick: bool,
    rows: int,
    decimal: DecimalMark | None,
) -> "MeasuredSet":
    """The test set of a series or of pairs."""
    with _training_errors():
        from weir.evaluate import forecasting, seq2seq

        series = description.contract.series if description.contract else None
        if series is not None:
            return forecasting.hold_out(
                data, series, rows, column, training=description.training, decimal=decimal
            )
        if column is not None:
            raise UsageError(f"--column: pairs have no columns to choose from, got {column!r}")
        return seq2seq.hold_out(data, description, changes, is_quick=is_quick, rows=rows)


def _print_origin(test_set: "ClassifiedSet | MeasuredSet") -> None:
    count = sum(request.row_count for request in test_set.requests)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(f"asking {count:,} {test_set.unit}: {test_set.origin.text}")
    for remark in test_set.remarks:
        console.print(remark)


def _compare_scores(
    test_set: "MeasuredSet", answers: "Sequence[Any]", contract: "Contract"
) -> None:
    """Print each score; WeirError if it differs from training's score of the same rows."""
    recorded = contract.training.metrics if contract.training else {}
    origin, tolerance = test_set.origin, test_set.tolerance
    console = Console(highlight=False, soft_wrap=True)
    measured = test_set.measure(answers)
    for name, value in measured.items():
        expected = recorded.get(f"test_{name}")
        is_other = expected is not None and origin.recorded != "test"
        note = f"   training had {expected:.6g} on its own test rows" if is_other else ""
        meaning = f"   {test_set.meanings[name]}" if name in test_set.meanings else ""
        console.print(f"{name} {value:.6g}{meaning}{note}", markup=False)
        if expected is None or is_other:
            continue
        if abs(value - expected) > tolerance.absolute + tolerance.relative * abs(expected):
            # A bundle of an earlier version does not record whether its run was quick.
            hint = (
                "; --quick goes with runs that had it, and no others"
                if contract.decoding and contract.training and not contract.training.split_checksums
                else ""
            )
            raise WeirError(f"expected {name} {expected:.6g}, got {value:.6g}{hint}")
    if origin.recorded == "test" and any(f"test_{name}" in recorded for name in measured):
        console.print("as expected: training measured the same on these rows")
    elif origin.remark:
        console.print(origin.remark)


def _recorded(contract: "Contract", split: "Recorded") -> float | None:
    """The accuracy on a split that the bundle records; None without a training record."""
    if contract.quantisation is not None and split == "test":
        return contract.quantisation.after
    if contract.training is None:
        return None
    metrics = contract.training.metrics
    if split == "test" and "test_accuracy" not in metrics:
        raise UsageError(f"{contract.architecture}: the bundle records no test_accuracy")
    # A bundle in INT8 measured its test rows alone.
    return None if contract.quantisation else metrics.get(f"{split}_accuracy")


def _answers(
    client: "Client",
    metadata: "ModelMetadata",
    requests: "Sequence[LabelledRequest | TextRequest]",
    *,
    task: str,
    version: str,
    concurrency: int,
) -> "Iterator[Any]":
    """The answers in order, with `concurrency` requests in flight."""
    from weir.evaluate.test_set import LabelledRequest

    def ask(request: "LabelledRequest | TextRequest") -> "Answer | TextAnswer":
        if isinstance(request, LabelledRequest):
            return client.infer(metadata.name, request.inputs, version=version)
        return _ask_texts(client, metadata.name, task, version, request)

    pending: deque[Future[Answer | TextAnswer]] = deque()
    console = Console(stderr=True)
    shown = track(
        requests, "asking", console=console, transient=True, disable=not console.is_terminal
    )
    with ThreadPoolExecutor(concurrency) as threads:
        for request in shown:
            if len(pending) == 2 * concurrency:
                yield pending.popleft().result()
            pending.append(threads.submit(ask, request))
        while pending:
            yield pending.popleft().result()


def _ask_texts(
    client: "Client", model: str, task: str, version: str, request: "TextRequest"
) -> "TextAnswer":
    """The label of each text, or the tags or generated tokens of each."""
    if task == "tagging":
        tagged = client.tag(model, request.texts, version=version)
        return [[token.tag for token in tokens] for tokens in tagged]
    if task == "sequence-to-sequence":
        results = [client.generate(model, text, version=version) for text in request.texts]
        return [list(result.result().hypotheses[0].tokens) for result in results]
    classified = client.classify_text(model, request.texts, top=1, version=version)
    return [[text.classes[0].label] for text in classified]


def _score(
    answers: "Sequence[Any]", metadata: "ModelMetadata", test_set: "ClassifiedSet"
) -> "ClassScores":
    from weir.client.rpc import ranked_output
    from weir.evaluate.class_scores import score
    from weir.evaluate.classification import labels_of
    from weir.evaluate.test_set import LabelledRequest

    output = ranked_output(metadata)
    expected: list[str] = []
    predicted: list[str] = []
    requests: Sequence[LabelledRequest | TextRequest] = test_set.requests
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(request, LabelledRequest):
            expected += request.targets.tolist()
            predicted += labels_of(answer[output], test_set.labels)
        else:
            expected += chain.from_iterable(request.targets)
            predicted += chain.from_iterable(answer)
    return score(expected, predicted, test_set.labels)


def _print_scores(
    scores: "ClassScores",
    test_set: "ClassifiedSet",
    contract: "Contract | None",
    elapsed_s: float,
) -> None:
    rows = sum(request.row_count for request in test_set.requests)
    is_tagging = contract is not None and contract.task == "tagging"
    counted = f"tokens in {rows:,} {test_set.unit}" if is_tagging else test_set.unit
    frequent = "tag of these tokens" if is_tagging else f"class of these {test_set.unit}"
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"accuracy {scores.accuracy:.4f} ({scores.right:,} of {scores.targets:,} {counted})   "
        f"{rows / elapsed_s:,.0f} {test_set.unit}/s"
    )
    if scores.is_unequal:
        of = " of the model's classes" if scores.has_unseen else ""
        console.print(f"macro F1 {scores.macro_f1:.4f}{of}, as classes are of unequal size")
    console.print(
        f"baseline {scores.baseline:.4f}: {scores.most_frequent}, the most frequent {frequent}, "
        "as every answer"
    )
    recorded = contract.training.metrics if contract and contract.training else {}
    words = recorded.get("test_baseline_accuracy")
    if is_tagging and words is not None and test_set.origin.recorded == "test":
        console.print(f"baseline {words:.4f}: each word's most frequent tag in training")
