"""`weir classify-text`: the most probable classes of texts."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.classify import classes_to_json
from weir.cli.error_hints import requires, suggest_verb
from weir.cli.fan_out import Outcome, call_each, raise_failures
from weir.cli.options import (
    AsJson,
    Concurrency,
    Model,
    Target,
    Texts,
    Timeout,
    Version,
    model_name,
)
from weir.cli.tag import TEXT_PREFIX
from weir.cli.text_inputs import read_texts
from weir.client import defaults

if TYPE_CHECKING:
    from weir.client.results import ClassifiedText


def classify_text(
    texts: Texts,
    *,
    model: Model = "",
    top: Annotated[int, typer.Option(min=1, help="Number of classes per text.")] = 5,
    concurrency: Concurrency = 16,
    version: Version = "",
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Classify texts.

    A text that fails is reported and skipped. Exit code 1 if a text failed.
    """
    with requires("client"):
        from weir.client.client import Client
    given = read_texts(texts)
    with Client(target, timeout_s=timeout) as client:
        name = model_name(client, model)

        def call(text: str) -> "ClassifiedText":
            return client.classify_text(name, [text], top=top, version=version)[0]

        with suggest_verb(client, name, "classify-text"):
            outcomes = call_each(
                call,
                given,
                concurrency=concurrency,
                item_prefix=TEXT_PREFIX,
                progress="classifying",
            )
    if as_json:
        typer.echo(json.dumps([_to_json(outcome) for outcome in outcomes], ensure_ascii=False))
    else:
        Console().print(_table(outcomes, name))
    raise_failures(outcomes, "texts could not be classified")


def _to_json(outcome: "Outcome[str, ClassifiedText]") -> dict[str, object]:
    if outcome.result is None:
        return {"text": outcome.item, "error": outcome.failure}
    classes = classes_to_json(outcome.result.classes)
    return {"text": outcome.item, "classes": classes, "unknown": list(outcome.result.unknown)}


def _table(outcomes: "Sequence[Outcome[str, ClassifiedText]]", model: str) -> Table:
    table = Table(title=model)
    table.add_column("text", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("never seen", overflow="fold")
    for outcome in outcomes:
        if outcome.result is None:
            table.add_row(escape(outcome.item), f"[red]{escape(outcome.failure)}[/]", "", "")
        else:
            unknown = escape(" ".join(outcome.result.unknown))
            for rank, chosen in enumerate(outcome.result.classes):
                table.add_row(
                    "" if rank else escape(outcome.item),
                    escape(chosen.label or str(chosen.index)),
                    f"{chosen.score:.4f}",
                    "" if rank else f"[yellow]{unknown}[/]",
                )
        table.add_section()
    return table
