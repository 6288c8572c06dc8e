"""`weir classify-text`: what kind of text each is, from a shell."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.advice import advised
from weir.cli.extras import requires
from weir.cli.many import Outcome, ask_all, raise_failures
from weir.cli.options import AsJson, Target, Timeout, Version
from weir.cli.tag import OWN
from weir.cli.texts import Concurrency, Model, Texts, model_of, texts_of
from weir.client import defaults

if TYPE_CHECKING:
    from weir.client.results import ClassifiedText


def classify_text(
    texts: Texts,
    *,
    model: Model = "",
    top: Annotated[int, typer.Option(min=1, help="How many classes a text gets.")] = 5,
    concurrency: Concurrency = 16,
    version: Version = "",
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Say what kind of text each is.

    A text that cannot be classified is named and passed over. Exit code 1 if there was one.
    """
    with requires("client"):
        from weir.client.client import Client
    given = texts_of(texts)
    with Client(target, timeout_s=timeout) as client:
        name = model_of(client, model)

        def ask(text: str) -> "ClassifiedText":
            return client.classify_text(name, [text], top=top, version=version)[0]

        with advised(client, name, "classify-text"):
            outcomes = ask_all(ask, given, concurrency=concurrency, own=OWN, doing="classifying")
    if as_json:
        typer.echo(json.dumps([_plain(outcome) for outcome in outcomes], ensure_ascii=False))
    else:
        Console().print(_table(outcomes, name))
    raise_failures(outcomes, "texts could not be classified")


def _plain(outcome: "Outcome[str, ClassifiedText]") -> dict[str, object]:
    if outcome.answer is None:
        return {"text": outcome.item, "error": outcome.failure}
    classes = [
        {"label": chosen.label, "index": chosen.index, "probability": chosen.score}
        for chosen in outcome.answer.classes
    ]
    return {"text": outcome.item, "classes": classes, "unknown": list(outcome.answer.unknown)}


def _table(outcomes: "Sequence[Outcome[str, ClassifiedText]]", model: str) -> Table:
    table = Table(title=model)
    table.add_column("text", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("never seen", overflow="fold")
    for outcome in outcomes:
        if outcome.answer is None:
            table.add_row(escape(outcome.item), f"[red]{escape(outcome.failure)}[/]", "", "")
        else:
            unknown = escape(" ".join(outcome.answer.unknown))
            for rank, chosen in enumerate(outcome.answer.classes):
                table.add_row(
                    "" if rank else escape(outcome.item),
                    escape(chosen.label or str(chosen.index)),
                    f"{chosen.score:.4f}",
                    "" if rank else f"[yellow]{unknown}[/]",
                )
        table.add_section()
    return table
