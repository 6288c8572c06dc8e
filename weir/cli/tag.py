"""`weir tag`: the tag of each token of texts."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
from weir.cli.text_inputs import read_texts
from weir.client import defaults

if TYPE_CHECKING:
    from weir.client.results import TaggedToken

# Prefix of the server's messages about the only text of a request.
TEXT_PREFIX = "texts[0]: "


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

    A text that fails is reported and skipped. Exit code 1 if a text failed.
    """
    with requires("client"):
        from weir.client.client import Client
    given = read_texts(texts)
    with Client(target, timeout_s=timeout) as client:
        name = model_name(client, model)

        def call(text: str) -> "list[TaggedToken]":
            return client.tag(name, [text], version=version)[0]

        with suggest_verb(client, name, "tag"):
            outcomes = call_each(
                call,
                given,
                concurrency=concurrency,
                item_prefix=TEXT_PREFIX,
                progress="tagging",
            )
    if as_json:
        typer.echo(json.dumps([_to_json(outcome) for outcome in outcomes], ensure_ascii=False))
    else:
        Console().print(_table(outcomes, name))
    raise_failures(outcomes, "texts could not be tagged")


def _to_json(outcome: "Outcome[str, list[TaggedToken]]") -> dict[str, object]:
    if outcome.result is None:
        return {"text": outcome.item, "error": outcome.failure}
    tokens = [
        {
            "text": token.text,
            "tag": token.tag,
            "probability": token.probability,
            "is_unknown": token.is_unknown,
        }
        for token in outcome.result
    ]
    return {"text": outcome.item, "tokens": tokens}


def _table(outcomes: "Sequence[Outcome[str, list[TaggedToken]]]", model: str) -> Table:
    table = Table(title=model)
    table.add_column("token", overflow="fold")
    table.add_column("tag", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("")
    for outcome in outcomes:
        if outcome.result is None:
            table.add_row(f"[red]{escape(outcome.failure)}[/]", "", "", "")
        for token in outcome.result or ():
            table.add_row(
                escape(token.text),
                escape(token.tag),
                f"{token.probability:.4f}",
                "[yellow]never seen[/]" if token.is_unknown else "",
            )
        table.add_section()
    return table
