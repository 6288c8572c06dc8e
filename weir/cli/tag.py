"""`weir tag`: a tag for each token of a text, from a shell."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.advice import advised
from weir.cli.extras import requires
from weir.cli.many import Outcome, ask_all, raise_failures
from weir.cli.options import AsJson, Target, Timeout, Version
from weir.cli.texts import Concurrency, Model, Texts, model_of, texts_of
from weir.client import defaults

if TYPE_CHECKING:
    from weir.client.results import TaggedToken

OWN = "texts[0]: "


def tag(
    texts: Texts,
    *,
    model: Model = "",
    concurrency: Concurrency = 16,
    version: Version = "",
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Tag each token of texts.

    A text that cannot be tagged is named and passed over. Exit code 1 if there was one.
    """
    with requires("client"):
        from weir.client.client import Client
    given = texts_of(texts)
    with Client(target, timeout_s=timeout) as client:
        name = model_of(client, model)

        def ask(text: str) -> "list[TaggedToken]":
            return client.tag(name, [text], version=version)[0]

        with advised(client, name, "tag"):
            outcomes = ask_all(ask, given, concurrency=concurrency, own=OWN, doing="tagging")
    if as_json:
        typer.echo(json.dumps([_plain(outcome) for outcome in outcomes], ensure_ascii=False))
    else:
        Console().print(_table(outcomes, name))
    raise_failures(outcomes, "texts could not be tagged")


def _plain(outcome: "Outcome[str, list[TaggedToken]]") -> dict[str, object]:
    if outcome.answer is None:
        return {"text": outcome.item, "error": outcome.failure}
    tokens = [
        {
            "text": token.text,
            "tag": token.tag,
            "probability": token.probability,
            "is_unknown": token.is_unknown,
        }
        for token in outcome.answer
    ]
    return {"text": outcome.item, "tokens": tokens}


def _table(outcomes: "Sequence[Outcome[str, list[TaggedToken]]]", model: str) -> Table:
    table = Table(title=model)
    table.add_column("token", overflow="fold")
    table.add_column("tag", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("")
    for outcome in outcomes:
        if outcome.answer is None:
            table.add_row(f"[red]{escape(outcome.failure)}[/]", "", "", "")
        for token in outcome.answer or ():
            table.add_row(
                escape(token.text),
                escape(token.tag),
                f"{token.probability:.4f}",
                "[yellow]never seen[/]" if token.is_unknown else "",
            )
        table.add_section()
    return table
