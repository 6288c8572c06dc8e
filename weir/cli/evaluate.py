"""`weir evaluate`: how good a *served* model is on a test set: what training measured must come out."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from weir.cli.advice import listed
from weir.cli.evaluation_sets import changes_of, hold_out, questions_of, read_bundle
from weir.cli.extras import requires
from weir.cli.options import Target, Timeout, Version
from weir.client import defaults
from weir.client.errors import UsageError, WeirError

if TYPE_CHECKING:
    from weir.bundle.contract import Contract
    from weir.client.client import Client
    from weir.client.results import Answer, ModelMetadata
    from weir.evaluate.questions import HeldOut, Question, QuestionSet

# Rows whose best two classes tie to the last digits may fall either way.
TOLERANCE = 0.0005
# Dynamic INT8 scales a batch as a whole: with other batch-mates, other rows come out otherwise.
DYNAMIC_TOLERANCE = 0.01
PAIRS = "Of pairs, as their training was told"


def evaluate(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="digits, mnist, trec, ewt, multi30k, sunspots, …, or a folder or file of yours.",
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
        str | None,
        typer.Option(help="Of CoNLL-U: upos, xpos, deprel or feats:NAME; without it: upos."),
    ] = None,
    target_data: Annotated[
        Path | None,
        typer.Option(help="The targets of --data, line by line.", rich_help_panel=PAIRS),
    ] = None,
    source_language: Annotated[
        str | None, typer.Option(help="Of multi30k: de, en or fr.", rich_help_panel=PAIRS)
    ] = None,
    target_language: Annotated[
        str | None, typer.Option(help="Likewise.", rich_help_panel=PAIRS)
    ] = None,
    with_stress: Annotated[
        bool,
        typer.Option("--with-stress", help="Of cmudict-pronounce.", rich_help_panel=PAIRS),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="It tested on short sources.", rich_help_panel=PAIRS),
    ] = False,
    version: Version = "",
    rows: Annotated[int, typer.Option(min=1, help="Rows a request.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Send a test set to a server and print how good its answers are.

    That is the accuracy; of a series RMSE and MASE; of pairs, answered greedily, error rates or BLEU.

    Of the texts or pairs that the bundle was trained on, what training held out is asked; of other files all.

    Exit code 1 if it is not the expected one: --expect, or what training measured on the same rows.
    """
    with requires("client"):
        from weir.client.client import Client
    read = read_bundle(bundle) if bundle is not None else None
    is_measured = read is not None and bool(read.contract.series or read.contract.decoding)
    if read is not None and is_measured and expect is not None:
        raise UsageError(f"--expect: {read.contract.task} has no accuracy, got {expect:g}")
    expected = _recorded(read.contract) if read and not is_measured and expect is None else expect
    changes = changes_of(target_data, source_language, target_language, with_stress=with_stress)
    if (changes or quick) and not (read and read.contract.decoding):
        raise UsageError("--target-data … --quick: go with --bundle of a pair, got another or none")
    with Client(target, timeout_s=timeout) as client:
        with listed(client, model):
            metadata = client.metadata(model, version)
        rows = min(rows, client.config(model, version).config.max_batch_size or rows)
        ask = partial(_answers, client, metadata, version=version, concurrency=concurrency)
        if read is not None and is_measured:
            held_out = hold_out(data, read, changes, is_quick=quick, rows=rows)
            _announce(held_out)
            _judge(held_out, list(ask(held_out.questions)), read.contract)
            return
        asked = questions_of(data, metadata, read, column=column, rows=rows)
        _announce(asked)
        accuracy = _accuracy(ask(asked.questions), metadata, asked.questions)
    if expected is None:
        return
    if asked.is_other and expect is None:
        Console(highlight=False).print(_aside(f"{expected:.4f}"))
        return
    cost = read.contract.quantisation if read else None
    is_dynamic = cost is not None and cost.method == "dynamic"
    _compare(accuracy, expected, DYNAMIC_TOLERANCE if is_dynamic else TOLERANCE)


def _announce(asked: "QuestionSet | HeldOut") -> None:
    """Say how many rows are asked, and which."""
    count = sum(len(question.answers) for question in asked.questions)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(f"asking {count:,} rows: {asked.why}")


def _aside(recorded: str) -> str:
    return f"training had {recorded} on its own test rows"


def _judge(held_out: "HeldOut", answers: "list[Answer]", contract: "Contract") -> None:
    """Print each measure, and hold it against what training recorded of the same rows."""
    recorded = contract.training.metrics if contract.training else {}
    tolerance = held_out.tolerance
    console = Console(highlight=False, soft_wrap=True)
    measured = held_out.measure(answers)
    for name, value in measured.items():
        expected = recorded.get(f"test_{name}")
        is_other = expected is not None and held_out.is_other
        console.print(
            f"{name} {value:.6g}" + (f"   {_aside(f'{expected:.6g}')}" if is_other else "")
        )
        if expected is None or is_other:
            continue
        if abs(value - expected) > tolerance.absolute + tolerance.relative * abs(expected):
            # The bundle does not say which form its run had.
            hint = (
                "; --quick goes with runs that had it, and no others" if contract.decoding else ""
            )
            raise WeirError(f"expected {name} {expected:.6g}, got {value:.6g}{hint}")
    if not held_out.is_other and any(f"test_{name}" in recorded for name in measured):
        console.print("as expected")


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
    console = Console(stderr=True)
    for question in track(
        questions, "asking", console=console, transient=True, disable=not console.is_terminal
    ):
        if len(pending) == concurrency:
            yield pending.popleft().result()
        pending.append(client.submit(metadata.name, question.inputs, version=version))
    for future in pending:
        yield future.result()


def _accuracy(
    answers: Iterator["Answer"], metadata: "ModelMetadata", questions: "list[Question]"
) -> float:
    """Print the share of right answers, and how fast they came."""
    from weir.client.rpc import ranked_output
    from weir.evaluate.questions import count_right

    names = [tensor.name for tensor in metadata.outputs]
    output = "tag_ids" if "tag_ids" in names else ranked_output(metadata)
    began = time.perf_counter()
    right = sum(
        count_right(question, answer[output])
        for question, answer in zip(questions, answers, strict=True)
    )
    elapsed_s = time.perf_counter() - began
    asked = sum(question.asked for question in questions)
    answered_rows = sum(len(question.answers) for question in questions)
    Console(highlight=False).print(
        f"accuracy {right / asked:.4f} ({right:,} of {asked:,})   "
        f"{answered_rows / elapsed_s:,.0f} rows/s"
    )
    return right / asked


def _compare(accuracy: float, expected: float, tolerance: float) -> None:
    difference = accuracy - expected
    if abs(difference) > tolerance:
        raise WeirError(f"expected accuracy {expected:.4f}, got {accuracy:.4f} ({difference:+.4f})")
    Console(highlight=False).print(f"as expected: {expected:.4f}")
